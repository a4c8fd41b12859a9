//! Acknowledgements that are owed for the first words on connections that are passed on.
//!
//! Those of a client are acknowledged by the answer, and those of an endpoint by what its client says next or by
//! its end: three segments of twenty less for a short connection ([`crate::base::socket::Socket::connect`];
//! listening sockets hand theirs down). Linux acknowledges by itself after 40 ms, and so long would one be held up who
//! writes a message in two parts with Nagle's algorithm on and waits for the answer. So what is not answered soon
//! ([`crate::base::reactor`]) is acknowledged alone. From then on a connection is the kernel's affair, and before
//! both are joined too: who waits in line or for a connect is acknowledged by it.

use crate::base::stream::Stream;

use super::pump::Pump;

/// What is owed on both connections of a pair.
#[derive(Debug)]
pub(super) struct Owed {
    client: Debt,
    endpoint: Debt,
    /// The endpoint spoke first: that it has spoken is no answer.
    is_greeted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Debt {
    /// It has said nothing yet.
    Unheard,
    /// It has spoken.
    Owed,
    None,
}

// === impl Owed ===

impl Owed {
    /// `is_told_at_once`: the endpoint's socket was connected to be told something, and acknowledges late.
    pub(super) fn new(is_told_at_once: bool) -> Self {
        Self {
            client: Debt::Unheard,
            endpoint: if is_told_at_once {
                Debt::Unheard
            } else {
                Debt::None
            },
            is_greeted: false,
        }
    }

    /// On connections on which there was talk before.
    pub(super) const fn nothing() -> Self {
        Self {
            client: Debt::None,
            endpoint: Debt::None,
            is_greeted: false,
        }
    }

    /// Takes note of what was moved, and acknowledges what has waited for long enough.
    #[inline]
    pub(super) fn settle(&mut self, client: &Stream, endpoint: &Stream, up: &Pump, down: &Pump) {
        // What is said later is not counted as an answer, which would take a count more in a quiet pair: so a
        // connection that was greeted and lives for longer costs a call and a segment more, once.
        if self.client != Debt::None {
            self.is_greeted |= up.moved == 0 && down.moved > 0;
            let is_answered = down.is_done || (down.moved > 0 && !self.is_greeted);
            self.client = self.client.next(client, up.moved > 0, is_answered);
        }
        if self.endpoint != Debt::None {
            self.endpoint = self.endpoint.next(endpoint, down.moved > 0, up.is_done);
        }
    }
}

// === impl Debt ===

impl Debt {
    fn next(self, to: &Stream, has_spoken: bool, is_answered: bool) -> Self {
        match (self, to) {
            (Self::Unheard, _) if !has_spoken => return self,
            (Self::Unheard, _) if is_answered => {}
            (Self::Unheard, Stream::Tcp(to)) if to.ask_soon() => return Self::Owed,
            // What is in the runtime's reactor is not rung for.
            (Self::Unheard, to) => to.acknowledge(),
            (Self::Owed, Stream::Tcp(to)) if is_answered => to.forget_soon(),
            (Self::Owed, Stream::Tcp(to)) if to.is_soon() => to.acknowledge(),
            (Self::Owed, _) => return self,
            (Self::None, _) => {}
        }
        Self::None
    }
}
