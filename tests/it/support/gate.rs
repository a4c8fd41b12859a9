//! A gate that a test opens: how a scripted delay waits for an event and not for a clock.

use std::sync::{Arc, Condvar, Mutex};

use super::{deadline, remaining};

/// Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    reached: usize,
}

impl Gate {
    /// A closed one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, for good.
    pub fn open(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().is_open = true;
        changed.notify_all();
    }

    /// Waits until it is open.
    #[track_caller]
    pub fn pass(&self) {
        self.await_state("gate to be opened", |s| s.reached += 1, |s| s.is_open);
    }

    /// Waits until `count` have come to it (and perhaps gone through).
    #[track_caller]
    pub fn await_reached(&self, count: usize) {
        let what = format!("{count} to reach a gate");
        self.await_state(&what, |_| (), |s| s.reached >= count);
    }

    #[track_caller]
    fn await_state(&self, what: &str, enter: impl Fn(&mut State), done: impl Fn(&State) -> bool) {
        let (state, changed) = &*self.0;
        let end = deadline();
        let mut state = state.lock().unwrap();
        enter(&mut state);
        changed.notify_all();
        while !done(&state) {
            let (guard, out) = changed.wait_timeout(state, remaining(end, what)).unwrap();
            state = guard;
            assert!(!out.timed_out() || done(&state), "not in time: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_opener_who_sees_the_waiter() {
        let gate = Gate::new();
        let waiter = std::thread::spawn({
            let gate = gate.clone();
            move || gate.pass()
        });
        gate.await_reached(1);
        assert!(!waiter.is_finished());
        gate.open();
        waiter.join().unwrap();
    }
}
