//! What handshakes may cost a worker in one turn.
//!
//! A full handshake takes 100 microseconds of arithmetic with P-256 and a millisecond with RSA; a
//! thousand clients that come at once would keep everybody else waiting for so long. So handshakes
//! pass a gate: once those of a turn of the worker's loop have taken [`BUDGET`], the others wait, in
//! the order of their coming, until the loop has looked at all its sockets and served who was ready.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::base::clock::{Clock, Nanos};

/// The gate of one worker.
#[derive(Debug)]
pub struct Gate {
    clock: Clock,
    /// What handshakes have taken in this turn.
    spent: Cell<Nanos>,
    /// How many of those who waited may pass.
    called: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
    /// Told when somebody begins to wait.
    full: Notify,
}

/// One that has passed: what it takes is counted until this is dropped.
#[derive(Debug)]
pub struct Entered<'g> {
    gate: &'g Gate,
    began: Nanos,
}

/// Half a millisecond: what a turn with a few dozen requests takes, so that a storm of handshakes
/// doubles the latency of others at worst.
const BUDGET: Nanos = 500_000;

// === impl Gate ===

impl Gate {
    /// An open gate.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            spent: Cell::new(0),
            called: Cell::new(0),
            waiting: RefCell::default(),
            full: Notify::new(),
        }
    }

    /// Ready when a handshake may take its step.
    pub fn poll_enter(&self, cx: &mut Context<'_>) -> Poll<Entered<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        let may_pass = if self.called.get() > 0 {
            self.called.set(self.called.get() - 1);
            true
        } else {
            waiting.is_empty() && self.spent.get() < BUDGET
        };
        if may_pass {
            return Poll::Ready(Entered {
                gate: self,
                began: self.clock.now(),
            });
        }
        waiting.push_back(cx.waker().clone());
        self.full.notify_one();
        Poll::Pending
    }

    /// Begins a new turn whenever the loop does, as long as somebody waits. Never ends.
    pub async fn keep(&self) {
        loop {
            // What was spent while nobody waited is counted too: the first who then waits, waits for
            // one turn in vain.
            if self.waiting.borrow().is_empty() {
                self.full.notified().await;
            }
            // tokio wakes who yields after it has looked at the sockets.
            tokio::task::yield_now().await;
            self.spent.set(0);
            self.call();
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Calls the next one.
    fn call(&self) {
        let next = self.waiting.borrow_mut().pop_front();
        // A call that was not taken (who waited has gone) is not kept for others.
        self.called.set(usize::from(next.is_some()));
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let gate = self.gate;
        let took = gate.clock.now().saturating_sub(self.began);
        gate.spent.set(gate.spent.get() + took);
        if gate.spent.get() < BUDGET && gate.called.get() == 0 {
            gate.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    #[tokio::test]
    async fn those_above_the_budget_wait_for_the_next_turn_and_all_come_in_order() {
        LocalSet::new()
            .run_until(async {
                let gate = Rc::new(Gate::new(Clock::start()));
                let keeper = {
                    let gate = gate.clone();
                    spawn_local(async move { gate.keep().await })
                };
                // This turn's is spent.
                gate.spent.set(BUDGET);
                let order = Rc::new(RefCell::new(Vec::new()));
                let all: Vec<_> = (0..5)
                    .map(|i| {
                        let (gate, order) = (gate.clone(), order.clone());
                        spawn_local(async move {
                            let entered = poll_fn(|cx| gate.poll_enter(cx)).await;
                            order.borrow_mut().push(i);
                            // As much as a whole turn may take.
                            gate.spent.set(BUDGET);
                            drop(entered);
                        })
                    })
                    .collect();
                tokio::task::yield_now().await;
                assert!(gate.waiting() > 0, "nobody passes before the turn is over");
                for one in all {
                    one.await.unwrap();
                }
                assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
                assert_eq!(gate.waiting(), 0);
                keeper.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_keeps_nobody_out() {
        LocalSet::new()
            .run_until(async {
                let gate = Rc::new(Gate::new(Clock::start()));
                gate.spent.set(BUDGET);
                let gone = {
                    let gate = gate.clone();
                    spawn_local(async move {
                        let _ = poll_fn(|cx| gate.poll_enter(cx)).await;
                    })
                };
                tokio::task::yield_now().await;
                assert_eq!(gate.waiting(), 1);
                gone.abort();
                let keeper = {
                    let gate = gate.clone();
                    spawn_local(async move { gate.keep().await })
                };
                drop(poll_fn(|cx| gate.poll_enter(cx)).await);
                keeper.abort();
            })
            .await;
    }
}
