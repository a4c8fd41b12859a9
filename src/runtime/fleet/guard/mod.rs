//! A fault of the peer ends the fleet here, not the process.
//!
//! What peers say is checked before it is taken in; but what nobody thought of reaches all of them within a second, and
//! all would end by it. So the machine is only ever asked in here: after a panic it is asked no more, this process
//! serves alone by what it had taken in until then, and people are told. What is saved stays as it was before.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Fleet, State};

// === impl Fleet ===

impl Fleet {
    /// Asks the machine. `None` = the fleet has ended here, now or before.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.stopped.is_some() {
            return None;
        }
        // What it leaves half done nobody acts on any more.
        match catch_unwind(AssertUnwindSafe(|| act(state))) {
            Ok(done) => Some(done),
            Err(panic) => {
                let why = why(&*panic);
                tracing::error!(
                    "fleet: it has ended for this process, which goes on alone with what it knows, by a fault of this \
                     program: {why}; report it, and restart the process to take part again"
                );
                state.stopped = Some(why);
                drop(guard);
                self.0.cells.stopped.set(1);
                // Its task tells the checker and those who ask whether this process is ready.
                self.0.wake.notify_one();
                None
            }
        }
    }

    /// Why the fleet has ended here by a fault of this program; `None` = it has not.
    pub fn stopped(&self) -> Option<String> {
        self.state().stopped.clone()
    }
}

/// What a panic says, on one line.
pub(super) fn why(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("it does not say");
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
