//! How long a connection is borne with: pure.

use crate::base::clock::Nanos;

/// What one connection has left.
#[derive(Debug)]
pub(super) struct Patience {
    /// From the begin of a head to its end.
    header_timeout: Nanos,
    /// Without a stream, once there was one.
    keepalive_timeout: Nanos,
    /// When it is old.
    expires: Nanos,
    /// Without a stream, now.
    idle: Nanos,
    /// Since when it has no stream.
    idle_since: Option<Nanos>,
    /// It was said that it ends.
    is_leaving: bool,
    /// It was refused, and ends then at the latest.
    ends_at: Option<Nanos>,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    /// GOAWAY, and what is under way is finished.
    Leave,
    /// Nobody listens any more.
    End,
    /// It owes the rest of a head: it is refused.
    Slow,
}

/// After a GOAWAY the client has this long to hear of it: as a client of HTTP/1 has that was answered
/// for the last time.
const FAREWELL: Nanos = 2 * 1_000_000_000;

// === impl Patience ===

impl Patience {
    /// With a connection that begins now. Its first request is due within `header_timeout`.
    pub(super) fn new(
        header_timeout: Nanos,
        keepalive_timeout: Nanos,
        expires: Nanos,
        now: Nanos,
    ) -> Self {
        Self {
            header_timeout,
            keepalive_timeout,
            expires,
            idle: header_timeout,
            idle_since: Some(now),
            is_leaving: false,
            ends_at: None,
        }
    }

    /// Whether it was refused.
    pub(super) fn has_refused(&self) -> bool {
        self.ends_at.is_some()
    }

    /// Looks at it now: it has no streams, or some; a head that is not whole has begun, or none has.
    pub(super) fn look(
        &mut self,
        is_idle: bool,
        block_since: Option<Nanos>,
        is_draining: bool,
        now: Nanos,
    ) -> Verdict {
        if !is_idle {
            self.idle_since = None;
            self.idle = self.keepalive_timeout;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
        if let Some(at) = self.ends_at {
            return if now >= at {
                Verdict::End
            } else {
                Verdict::Stay
            };
        }
        let is_late = |at: Option<Nanos>| at.is_some_and(|at| now >= at);
        if is_late(self.block_due(block_since)) {
            self.refuse(now);
            return Verdict::Slow;
        }
        let is_quiet = is_late(self.idle_due(block_since));
        if self.is_leaving {
            return if is_quiet {
                Verdict::End
            } else {
                Verdict::Stay
            };
        }
        if is_draining || now >= self.expires || is_quiet {
            self.is_leaving = true;
            self.idle_since = self.idle_since.map(|_| now);
            return Verdict::Leave;
        }
        Verdict::Stay
    }

    /// It was told that it is refused, and has a farewell's time to hear of it; `false` if it was
    /// refused before.
    pub(super) fn refuse(&mut self, now: Nanos) -> bool {
        let is_first = self.ends_at.is_none();
        self.ends_at.get_or_insert(now.saturating_add(FAREWELL));
        is_first
    }

    /// When to look again, whatever happens.
    pub(super) fn until(&self, block_since: Option<Nanos>) -> Nanos {
        if let Some(at) = self.ends_at {
            return at;
        }
        let old = (!self.is_leaving).then_some(self.expires);
        let dues = [self.idle_due(block_since), self.block_due(block_since), old];
        dues.into_iter().flatten().min().unwrap_or(Nanos::MAX)
    }

    /// When it has been without a stream for too long. Who is saying something is not: a request on
    /// its way is not answered with a farewell.
    fn idle_due(&self, block_since: Option<Nanos>) -> Option<Nanos> {
        let time = if self.is_leaving { FAREWELL } else { self.idle };
        self.idle_since
            .filter(|_| block_since.is_none())
            .map(|since| since.saturating_add(time))
    }

    fn block_due(&self, block_since: Option<Nanos>) -> Option<Nanos> {
        block_since.map(|since| since.saturating_add(self.header_timeout))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Nanos = 1_000_000_000;
    const NEVER: Nanos = Nanos::MAX;

    /// Ten seconds for a head, 75 between requests, from the time 100 s on.
    fn patience(expires: Nanos) -> Patience {
        Patience::new(10 * S, 75 * S, expires, 100 * S)
    }

    fn idle(patience: &mut Patience, now: Nanos) -> Verdict {
        patience.look(true, None, false, now)
    }

    fn busy(patience: &mut Patience, now: Nanos) -> Verdict {
        patience.look(false, None, false, now)
    }

    #[test]
    fn first_request_that_never_comes_is_waited_for_as_for_a_head() {
        let mut p = patience(NEVER);
        assert_eq!(p.until(None), 110 * S);
        assert_eq!(idle(&mut p, 100 * S), Verdict::Stay);
        assert_eq!(idle(&mut p, 110 * S - 1), Verdict::Stay);
        assert_eq!(idle(&mut p, 110 * S), Verdict::Leave);
        assert_eq!(p.until(None), 112 * S);
        assert_eq!(idle(&mut p, 112 * S - 1), Verdict::Stay);
        assert_eq!(idle(&mut p, 112 * S), Verdict::End);
    }

    #[test]
    fn keepalive_timeout_begins_with_the_end_of_the_last_stream() {
        let mut p = patience(NEVER);
        assert_eq!(busy(&mut p, 105 * S), Verdict::Stay);
        assert_eq!(p.until(None), NEVER);
        // Streams may take as long as they take.
        assert_eq!(busy(&mut p, 9000 * S), Verdict::Stay);
        assert_eq!(idle(&mut p, 9001 * S), Verdict::Stay);
        assert_eq!(p.until(None), 9076 * S);
        assert_eq!(busy(&mut p, 9076 * S), Verdict::Stay);
        assert_eq!(idle(&mut p, 9080 * S), Verdict::Stay);
        assert_eq!(idle(&mut p, 9155 * S - 1), Verdict::Stay);
        assert_eq!(idle(&mut p, 9155 * S), Verdict::Leave);
        assert_eq!(idle(&mut p, 9157 * S), Verdict::End);
    }

    #[test]
    fn old_connection_finishes_its_streams_and_ends_after_a_farewell() {
        let mut p = patience(130 * S);
        assert_eq!(busy(&mut p, 101 * S), Verdict::Stay);
        assert_eq!(p.until(None), 130 * S);
        assert_eq!(busy(&mut p, 130 * S), Verdict::Leave);
        assert_eq!(p.until(None), NEVER, "only the streams are waited for");
        assert_eq!(busy(&mut p, 500 * S), Verdict::Stay);
        assert_eq!(idle(&mut p, 501 * S), Verdict::Stay);
        assert_eq!(p.until(None), 503 * S);
        assert_eq!(idle(&mut p, 503 * S), Verdict::End);
    }

    #[test]
    fn draining_connection_leaves_at_once_and_only_once() {
        let mut p = patience(NEVER);
        assert_eq!(p.look(false, None, true, 101 * S), Verdict::Leave);
        assert_eq!(p.look(false, None, true, 101 * S), Verdict::Stay);
        assert_eq!(p.look(true, None, true, 102 * S), Verdict::Stay);
        assert_eq!(p.look(true, None, true, 104 * S), Verdict::End);

        let mut idle_for_long = patience(NEVER);
        let at = 109 * S;
        assert_eq!(idle_for_long.look(true, None, true, at), Verdict::Leave);
        assert_eq!(idle_for_long.until(None), at + FAREWELL);
        assert_eq!(idle_for_long.look(true, None, true, at), Verdict::Stay);
        let end = at + FAREWELL;
        assert_eq!(idle_for_long.look(true, None, true, end), Verdict::End);
    }

    /// Streams that come within the farewell are served, and it begins anew.
    #[test]
    fn request_that_crosses_the_farewell_is_served() {
        let mut p = patience(NEVER);
        assert_eq!(p.look(true, None, true, 101 * S), Verdict::Leave);
        assert_eq!(p.look(false, None, true, 102 * S), Verdict::Stay);
        assert_eq!(p.look(false, None, true, 200 * S), Verdict::Stay);
        assert_eq!(p.look(true, None, true, 201 * S), Verdict::Stay);
        assert_eq!(p.look(true, None, true, 203 * S), Verdict::End);
    }

    #[test]
    fn abuse_is_told_once_and_ends_within_the_farewell_whatever_is_open() {
        let mut p = patience(NEVER);
        assert_eq!(busy(&mut p, 101 * S), Verdict::Stay);
        assert!(p.refuse(102 * S));
        assert!(!p.refuse(103 * S));
        assert_eq!(p.until(Some(100 * S)), 104 * S);
        // Neither old age nor a drain nor a head that is late is said after that.
        let late = Some(90 * S);
        assert_eq!(p.look(false, late, true, 103 * S), Verdict::Stay);
        assert_eq!(p.look(false, late, true, 104 * S), Verdict::End);
    }

    #[test]
    fn unfinished_head_is_given_header_timeout_even_beside_streams() {
        let mut p = patience(NEVER);
        let since = Some(102 * S);
        assert_eq!(p.look(false, since, false, 103 * S), Verdict::Stay);
        assert_eq!(p.until(since), 112 * S);
        assert_eq!(p.look(false, since, false, 112 * S - 1), Verdict::Stay);
        assert_eq!(p.look(false, since, false, 112 * S), Verdict::Slow);
        assert_eq!(p.until(since), 114 * S);
        assert!(!p.refuse(112 * S), "it was refused by this");
        assert_eq!(p.look(false, since, false, 113 * S), Verdict::Stay);
        assert_eq!(p.look(false, since, false, 114 * S), Verdict::End);
    }

    /// A head that has begun is no silence: it is told once, with the right code, that it is late, and
    /// before that it is waited for.
    #[test]
    fn unfinished_first_head_is_slow_and_not_idle() {
        let mut p = patience(NEVER);
        let since = Some(109 * S);
        assert_eq!(p.look(true, since, false, 110 * S), Verdict::Stay);
        assert_eq!(p.until(since), 119 * S);
        assert_eq!(p.look(true, since, false, 119 * S), Verdict::Slow);
        assert_eq!(p.look(true, since, false, 121 * S), Verdict::End);
    }

    #[test]
    fn unfinished_head_does_not_outlive_a_drain() {
        let mut p = patience(NEVER);
        let since = Some(101 * S);
        assert_eq!(p.look(true, since, true, 102 * S), Verdict::Leave);
        assert_eq!(p.until(since), 111 * S);
        assert_eq!(p.look(true, since, true, 111 * S), Verdict::Slow);
        assert_eq!(p.look(true, since, true, 113 * S), Verdict::End);
    }

    #[test]
    fn times_without_an_end_do_not_overflow() {
        let mut p = Patience::new(NEVER, NEVER - 1, NEVER, 5 * S);
        assert_eq!(p.until(None), NEVER);
        assert_eq!(p.look(true, Some(7 * S), false, 8 * S), Verdict::Stay);
        assert_eq!(busy(&mut p, 9 * S), Verdict::Stay);
        assert_eq!(idle(&mut p, 10 * S), Verdict::Stay);
        assert_eq!(p.until(None), NEVER);
        assert_eq!(p.look(true, None, true, NEVER - 1), Verdict::Leave);
        assert_eq!(p.until(None), NEVER);
    }

    proptest! {
        /// However a connection goes on, a verdict is final or there is something to wait for: asked
        /// again at the same time it says so within two more words, and what it waits for lies ahead.
        #[test]
        fn no_verdict_spins(
            expires in prop_oneof![Just(NEVER), 0..60_u64],
            timeouts in (0..20_u64, 0..20_u64),
            steps in prop::collection::vec(
                (0..10_u64, any::<bool>(), prop::option::of(0..15_u64), any::<bool>(), 0..20_u8),
                1..30,
            ),
        ) {
            let (header, keepalive) = timeouts;
            let mut p = Patience::new(header * S, keepalive * S, expires.saturating_mul(S), 0);
            let mut now = 0;
            let mut is_draining = false;
            let mut told = (0, 0);
            for (pass, is_idle, block_age, drains, abuse) in steps {
                now += pass * S;
                is_draining |= drains;
                let since = block_age.map(|age| now.saturating_sub(age * S));
                if abuse == 0 {
                    p.refuse(now);
                }
                let mut rounds = 0;
                let last = loop {
                    let verdict = p.look(is_idle, since, is_draining, now);
                    match verdict {
                        Verdict::Leave => told.0 += 1,
                        Verdict::Slow => told.1 += 1,
                        Verdict::Stay | Verdict::End => break verdict,
                    }
                    rounds += 1;
                    prop_assert!(rounds <= 2, "{p:?}");
                };
                prop_assert!(told.0 <= 1 && told.1 <= 1, "told twice: {p:?}");
                if last == Verdict::End {
                    break;
                }
                prop_assert!(p.until(since) > now, "{p:?}");
            }
        }
    }
}
