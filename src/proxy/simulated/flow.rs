//! One exchange after the other, as `attempt.rs`, `dial.rs` and `queue.rs` have it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::base::clock::{Nanos, nanos};
use crate::telemetry::metrics::cells::RetryReason;
use crate::upstream::{Called, Picked, Seen, Ticket};

use super::super::retry::Tries;
use super::hedging::BESIDE;
use super::{Does, Done, End, Event, Exchange, ROUND_TRIP, Sim, Wakes, What};

// === impl Sim ===

impl Sim {
    /// A request comes to a worker.
    pub(super) fn arrive(&mut self, worker: usize) {
        let Ok(admission) = self.upstream.admit(worker, self.now) else {
            self.done.push(Done {
                arrived: self.now,
                at: self.now,
                end: End::Breaker,
            });
            return;
        };
        self.upstream.cells.worker(worker).exchanges.inc();
        self.exchanges.push(Some(Exchange {
            worker,
            arrived: self.now,
            picked: self.now,
            attempt: 0,
            tries: Tries::new(self.retry),
            ticket: None,
            second: None,
            admission,
            waiting: None,
        }));
        self.pick(self.exchanges.len() - 1);
    }

    /// Step 6a.
    pub(super) fn pick(&mut self, id: usize) {
        let x = self.exchanges[id].as_mut().unwrap();
        x.ticket = None;
        let (local, rng) = &mut self.workers[x.worker];
        let is_called = !x.tries.is_first();
        let mut picked = local.pick(None, x.tries.tried(), is_called, self.now, rng);
        if !is_called && self.fifo.as_ref().is_some_and(|line| !line.is_empty()) {
            picked = Picked::Full;
        }
        match picked {
            Picked::One(ticket) => self.attempt(id, ticket),
            Picked::Nobody => self.end(id, End::NoEndpoint),
            Picked::Full => self.wait(id),
        }
    }

    /// `queue::wait`
    fn wait(&mut self, id: usize) {
        let spec = self.upstream.spec.queue;
        let length = spec.length as usize;
        let attempt = self.exchanges[id].as_ref().unwrap().attempt;
        if let Some(line) = &mut self.fifo {
            if line.len() >= length {
                return self.end(id, End::QueueFull);
            }
            line.push_back((self.now + nanos(spec.timeout), id));
        } else {
            let Some(waiter) = self.upstream.waiting.join(length, self.now) else {
                return self.end(id, End::QueueFull);
            };
            let may_pick = waiter.is_alone();
            self.exchanges[id].as_mut().unwrap().waiting = Some((waiter, false));
            self.poll(id, may_pick);
        }
        let timeout = self.now + nanos(spec.timeout);
        self.schedule(
            timeout,
            Event::QueueTimeout {
                exchange: id,
                attempt,
            },
        );
    }

    /// The waiting future of `queue::wait` is polled.
    fn poll(&mut self, id: usize, mut may_pick: bool) {
        let Some(x) = self.exchanges[id].as_mut() else {
            return;
        };
        let Some((waiter, is_called)) = &mut x.waiting else {
            return;
        };
        let waker = Waker::from(Arc::new(Wakes {
            exchange: id,
            woken: self.woken.clone(),
        }));
        let (local, rng) = &mut self.workers[x.worker];
        let waited = loop {
            if may_pick {
                match local.pick(None, x.tries.tried(), true, self.now, rng) {
                    Picked::One(ticket) => break Ok(ticket),
                    Picked::Nobody => break Err(End::NoEndpoint),
                    Picked::Full => {}
                }
            }
            match waiter.poll_called(&Context::from_waker(&waker)) {
                Poll::Pending => return,
                Poll::Ready(Called::Away) => break Err(End::QueueFull),
                Poll::Ready(Called::In) if *is_called => {
                    waiter.again(self.now);
                    *is_called = false;
                    may_pick = waiter.is_alone();
                }
                Poll::Ready(Called::In) => {
                    *is_called = true;
                    may_pick = true;
                }
            }
        };
        let (waiter, _) = x.waiting.take().unwrap();
        match waited {
            Ok(ticket) => {
                waiter.enter(|| local.has_room(), self.now);
                self.attempt(id, ticket);
            }
            Err(end) => {
                drop(waiter);
                self.end(id, end);
            }
        }
    }

    /// Polls whoever was woken.
    pub(super) fn wake(&mut self) {
        loop {
            let woken = std::mem::take(&mut *self.woken.lock().unwrap());
            if woken.is_empty() {
                break;
            }
            for id in woken {
                self.poll(id, false);
            }
        }
        while let Some((until, id)) = self.fifo.as_mut().and_then(|line| line.front().copied()) {
            let x = self.exchanges[id].as_mut().filter(|_| self.now < until);
            if let Some(x) = x {
                let (local, rng) = &mut self.workers[x.worker];
                let Picked::One(ticket) = local.pick(None, x.tries.tried(), true, self.now, rng)
                else {
                    return;
                };
                self.attempt(id, ticket);
            }
            self.fifo.as_mut().unwrap().pop_front();
        }
    }

    pub(super) fn queue_timeout(&mut self, id: usize, attempt: u32) {
        let Some(x) = self.exchanges[id].as_mut() else {
            return;
        };
        if x.attempt == attempt && x.ticket.is_none() {
            drop(x.waiting.take());
            self.end(id, End::QueueTimeout);
        }
    }

    /// Steps 6b and 6c.
    fn attempt(&mut self, id: usize, ticket: Ticket) {
        let x = self.exchanges[id].as_mut().unwrap();
        x.attempt += 1;
        x.picked = self.now;
        let (server, attempt) = (ticket.index, x.attempt);
        x.ticket = Some(ticket);
        self.attempts.push((self.now, server));
        let comes = match self.servers[server].does {
            Does::Serve => {
                let answered = self.servers[server].serve(self.now, &mut self.rng);
                Some((answered, What::Answer))
            }
            Does::Fail => Some((self.now + ROUND_TRIP, What::Error)),
            Does::Refuse => Some((self.now + ROUND_TRIP, What::Refusal)),
            Does::Hang => None,
        };
        let patience = self.retry.per_try_timeout.map_or(Nanos::MAX, nanos);
        let timeout = self.now.saturating_add(patience);
        let (at, what) = comes
            .filter(|(at, _)| *at < timeout)
            .unwrap_or((timeout, What::Timeout));
        self.schedule(
            at,
            Event::Comes {
                exchange: id,
                attempt,
                what,
            },
        );
        self.hedge(id);
    }

    /// What an attempt came to.
    pub(super) fn comes(&mut self, id: usize, attempt: u32, what: What) {
        if attempt == BESIDE {
            return self.second_comes(id, what);
        }
        let Some(x) = self.exchanges[id].as_mut().filter(|x| x.attempt == attempt) else {
            return;
        };
        if let (What::Answer, Some((second, began))) = (what, x.second.take()) {
            // `Hedging::call_off`
            second.observe(Seen::Cancelled, Some(self.now - began), self.now);
        }
        let Some(ticket) = &x.ticket else {
            return;
        };
        let now = self.now;
        let (local, rng) = &mut self.workers[x.worker];
        let elapsed = now - x.picked;
        let mut another = |why| {
            let at = (x.worker, now);
            let endpoint = ticket.endpoint();
            x.tries.another(why, endpoint, local, None, at, rng)
        };
        let (seen, end, pause) = match what {
            What::Answer => {
                local.learn(now - x.arrived);
                (Seen::Answered, End::Answered, None)
            }
            What::Error => {
                let is_wanted = self.retry.on.statuses.binary_search(&500).is_ok();
                let pause = is_wanted.then(|| another(RetryReason::Status)).flatten();
                (Seen::Failed, End::Failed, pause)
            }
            What::Timeout => (Seen::Failed, End::TimedOut, another(RetryReason::Timeout)),
            What::Refusal => {
                // A failed connect is told before another is asked for (`dial.rs`).
                ticket.observe(Seen::Unconnected, Some(elapsed), now);
                ticket.judge(&self.upstream, Seen::Unconnected, now);
                (
                    Seen::Unconnected,
                    End::Unconnected,
                    another(RetryReason::Connect),
                )
            }
        };
        if what != What::Refusal {
            ticket.observe(seen, Some(elapsed), now);
            ticket.judge(&self.upstream, seen, now);
        }
        match pause {
            None => {
                if let Some(admission) = x.admission.take() {
                    admission.end(seen, now);
                }
                self.end(id, end);
            }
            Some(0) => self.pick(id),
            Some(pause) => {
                x.ticket = None;
                self.schedule(now + pause, Event::Again { exchange: id });
            }
        }
    }

    pub(super) fn end(&mut self, id: usize, end: End) {
        let x = self.exchanges[id].take().unwrap();
        self.done.push(Done {
            arrived: x.arrived,
            at: self.now,
            end,
        });
    }
}
