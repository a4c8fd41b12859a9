//! A future that is used again and again: jobs go in, results come out, its memory stays.
//!
//! The state of a request in flight is some kilobytes; as part of a connection's task every idle
//! connection would pay for it, boxed per request every request would allocate. A [`Coroutine`] is
//! boxed once, lent to the connection that has work, and polled inside that connection's task: no
//! other task, no channel, no allocation.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A reusable future that turns jobs into results.
pub struct Coroutine<J, R> {
    future: Pin<Box<dyn Future<Output = ()>>>,
    slot: Rc<Slot<J, R>>,
}

/// The coroutine's own end: where it takes jobs from and leaves results.
#[derive(Debug)]
pub struct Jobs<J, R>(Rc<Slot<J, R>>);

#[derive(Debug)]
struct Slot<J, R> {
    job: RefCell<Option<J>>,
    result: RefCell<Option<R>>,
}

// === impl Coroutine ===

impl<J: 'static, R: 'static> Coroutine<J, R> {
    /// A coroutine whose body, made by `make`, loops over its [`Jobs`] for ever.
    pub fn new<F>(make: impl FnOnce(Jobs<J, R>) -> F) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let slot = Rc::new(Slot {
            job: RefCell::new(None),
            result: RefCell::new(None),
        });
        let future = Box::pin(make(Jobs(slot.clone())));
        Self { future, slot }
    }

    /// Hands over a job, which the next polls of [`Coroutine::poll_result`] run.
    pub fn begin(&mut self, job: J) {
        *self.slot.job.borrow_mut() = Some(job);
    }

    /// Runs the job that was begun. Not cancel-safe: whoever stops polling before the result comes
    /// has a coroutine with a half-done job and must drop it.
    pub fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<R> {
        // The body loops for ever, so its own readiness says nothing.
        let _ = self.future.as_mut().poll(cx);
        self.slot
            .result
            .borrow_mut()
            .take()
            .map_or(Poll::Pending, Poll::Ready)
    }
}

impl<J, R> fmt::Debug for Coroutine<J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coroutine").finish_non_exhaustive()
    }
}

// === impl Jobs ===

impl<J, R> Jobs<J, R> {
    /// The next job. It registers no waker: whoever brings a job polls the coroutine itself.
    pub async fn next(&self) -> J {
        poll_fn(|_| {
            self.0
                .job
                .borrow_mut()
                .take()
                .map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Leaves the result of the job.
    pub fn finish(&self, result: R) {
        *self.0.result.borrow_mut() = Some(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_job_after_job_and_keeps_its_state() {
        let mut coroutine = Coroutine::new(|jobs: Jobs<u32, u32>| async move {
            let mut sum = 0;
            loop {
                let n = jobs.next().await;
                tokio::task::yield_now().await;
                sum += n;
                jobs.finish(sum);
            }
        });
        for (job, sum) in [(1, 1), (2, 3), (40, 43)] {
            coroutine.begin(job);
            assert_eq!(poll_fn(|cx| coroutine.poll_result(cx)).await, sum);
        }
    }
}
