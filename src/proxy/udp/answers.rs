//! What endpoints answer, back to the clients.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::time::Timespec;

use crate::config::FlowKey;
use crate::telemetry::metrics::cells::{DatagramDrop, FlowEnd};

use super::batch::{BATCH, Slots};
use super::flow::{Place, Way};
use super::flows::Id;
use super::key::Key;
use super::quic::{self, Header};
use super::serve::{State, Turn};

/// Flows that have answers.
#[derive(Default)]
pub(super) struct Answers {
    ready: Vec<epoll::Event>,
    /// Counts looks at the epoll: a flow that is ready in two that follow each other has more than one
    /// answer waiting.
    round: u64,
    /// Answers since [`begin`](Self::begin).
    taken: usize,
}

/// Answers before the sockets and other tasks of the worker are looked at: as many as datagrams of clients. (Those
/// of one look more at most.)
const MANY: usize = 256;

/// Looks at the epoll in one turn; then the clients have theirs.
const ROUNDS: usize = 4;

/// Answers of one flow that are read in a row once it is seen to have many.
const RUN: usize = 16;

const NOT_AT_ALL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

// === impl Answers ===

impl Answers {
    /// Others have had their turn.
    pub(super) fn begin(&mut self) {
        self.taken = 0;
    }

    /// Whether it is that of others.
    pub(super) fn are_many(&self) -> bool {
        self.taken >= MANY
    }
}

// === impl State ===

impl State {
    /// Passes on what endpoints have answered. Whether that was all.
    pub(super) fn take_answers(
        &mut self,
        turn: &Turn<'_>,
        socket: &OwnedFd,
        slots: &mut Slots,
    ) -> bool {
        let mut is_all = false;
        for _ in 0..ROUNDS {
            let mut ready = std::mem::take(&mut self.answers.ready);
            ready.clear();
            ready.reserve(BATCH);
            let buffer = rustix::buffer::spare_capacity(&mut ready);
            let count = epoll::wait(turn.around.epoll, buffer, Some(&NOT_AT_ALL));
            is_all = matches!(count, Ok(0));
            self.answers.round += 1;
            // All of them have a turn, and the same share of it: the epoll tells of the first again before it
            // tells of those who were passed over, and these had nothing, ever.
            let run = (MANY / ready.len().max(1)).min(RUN);
            for event in &ready {
                let id = Id::from_bits({ event.data }.u64());
                self.take_answers_of(turn, (id, run), socket, slots);
            }
            self.answers.ready = ready;
            if is_all || self.answers.are_many() {
                break;
            }
        }
        self.flush(turn, socket, slots);
        is_all
    }

    /// At most `run` of each of its ways.
    fn take_answers_of(
        &mut self,
        turn: &Turn<'_>,
        (id, run): (Id, usize),
        socket: &OwnedFd,
        slots: &mut Slots,
    ) {
        let round = self.answers.round;
        let Some(flow) = self.flows.get(id) else {
            return;
        };
        let run = if flow.round + 1 == round { run } else { 1 };
        flow.round = round;
        for way in [Way::Home, Way::Moved] {
            for _ in 0..run {
                if self.batch.is_full() {
                    self.flush(turn, socket, slots);
                }
                if self.take_answer(turn, id, way, slots).is_break() {
                    break;
                }
            }
        }
    }

    /// Takes one answer of a flow; `Break` = there is none on this way.
    fn take_answer(
        &mut self,
        turn: &Turn<'_>,
        id: Id,
        way: Way,
        slots: &mut Slots,
    ) -> ControlFlow<()> {
        let Some(flow) = self.flows.get(id) else {
            return ControlFlow::Break(());
        };
        if flow.is_cut() {
            flow.leave(&turn.around);
            return ControlFlow::Break(());
        }
        // A failure may have closed it.
        let Some(link) = flow.socket(way) else {
            return ControlFlow::Break(());
        };
        let room = slots.get_mut(self.batch.free());
        let len = match recv(link, &mut *room, RecvFlags::DONTWAIT) {
            Ok((_, len)) => len,
            Err(Errno::AGAIN) => return ControlFlow::Break(()),
            Err(Errno::INTR) => return ControlFlow::Continue(()),
            // A router's word on the path: a datagram of before was too long for it. The kernel knows now.
            Err(Errno::MSGSIZE) => {
                let cells = turn.listener.cells.worker(self.worker.index);
                cells.dropped_datagrams(DatagramDrop::TooLong).inc();
                return ControlFlow::Continue(());
            }
            Err(errno) => {
                flow.broke(&turn.around, way, errno);
                return ControlFlow::Break(());
            }
        };
        self.answers.taken += 1;
        flow.answered(&turn.around, len);
        let place = flow.place_of_answer(way, len);
        if let FlowKey::Quic { length } = turn.spec.flow
            && let Some(Header::Long { source, .. }) =
                quic::header(&room[..len], usize::from(length))
            && !source.is_empty()
        {
            self.flows.add_key(id, Key::of_id(source));
        }
        if let Some(Place { peer, local }) = place {
            self.batch.push(len, peer, local);
        } else {
            let cells = turn.listener.cells.worker(self.worker.index);
            cells.dropped_datagrams(DatagramDrop::Refused).inc();
        }
        let responses = turn.spec.responses.map(std::num::NonZeroU32::get);
        if self.flows.answer(id, turn.around.now, responses) {
            if let Some(flow) = self.flows.remove(id) {
                self.end(&turn.around, flow, FlowEnd::Responses, None);
            }
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn flush(&mut self, turn: &Turn<'_>, socket: &OwnedFd, slots: &Slots) {
        let sent = self.batch.flush(socket, slots);
        let cells = turn.listener.cells.worker(self.worker.index);
        cells.sent_datagrams.add(sent.out);
        cells
            .dropped_datagrams(DatagramDrop::SendBuffer)
            .add(sent.full);
        cells
            .dropped_datagrams(DatagramDrop::Refused)
            .add(sent.refused);
    }
}
