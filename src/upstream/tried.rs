//! Whom one exchange has tried already.

use std::rc::Rc;

use super::LocalEndpoint;
use super::local::Generation;

/// Endpoints that failed an exchange: not asked again while another one is ready. By identity, because
/// members may change between two attempts.
#[derive(Clone, Debug, Default)]
pub struct Tried(Vec<Rc<LocalEndpoint>>);

// === impl Tried ===

impl Tried {
    /// Notes one more.
    pub fn push(&mut self, endpoint: &Rc<LocalEndpoint>) {
        self.0.push(endpoint.clone());
    }

    /// Forgets them: one of them has answered, or all have failed.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Their indices in `generation`, of those that are still members.
    pub(super) fn indices(&self, generation: &Generation) -> Vec<usize> {
        let places = generation.endpoints.iter().enumerate();
        let tried = |e: &Rc<LocalEndpoint>| self.0.iter().any(|t| Rc::ptr_eq(t, e));
        // The first attempt of nearly every exchange: nothing to look for.
        if self.0.is_empty() {
            return Vec::new();
        }
        places.filter(|(_, e)| tried(e)).map(|(i, _)| i).collect()
    }
}
