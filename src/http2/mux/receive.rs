//! Frames found in bytes, and what each does.

use crate::http2::frame::{
    self, Code, FIRST_WINDOW, HEADER, Header, MAX_FRAME, MAX_WINDOW, PREFACE, flag, kind, setting,
};

use super::stream::{Key, StreamError};
use super::{CONTINUATIONS, End, Mux, Role};

/// What the next byte is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// One of the client's preface, of which so many have come.
    Preface(usize),
    /// One of a frame's header, or of its payload that is gathered until it is whole.
    Frame,
    /// One of a DATA frame.
    Data(Data),
}

/// A DATA frame that is passing: it is not gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    /// Whose it is; `None` = nobody wants it.
    key: Option<Key>,
    /// Bytes of the body that are to come.
    content: u32,
    /// Bytes behind them that mean nothing.
    padding: u32,
    /// The next byte is the length of the padding.
    is_padded: bool,
    has_end: bool,
}

impl Input {
    /// Nobody has this stream any more: how much of it is on its way.
    pub(super) fn disown(&mut self, of: Key) -> u32 {
        match self {
            Self::Data(data) if data.key == Some(of) => {
                data.key = None;
                // The padding was free at once.
                data.content + u32::from(data.is_padded)
            }
            Self::Data(_) | Self::Frame | Self::Preface(_) => 0,
        }
    }
}

impl Mux {
    /// Takes what came, which ends anywhere. What is wrong ends the connection.
    pub(in crate::http2) fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.end.is_none() {
            if let Err(code) = self.take_some(&mut bytes) {
                self.fail(code);
            }
        }
    }

    /// Takes the next frame of `bytes`, or all that is there of it.
    fn take_some(&mut self, bytes: &mut &[u8]) -> Result<(), Code> {
        match self.input {
            Input::Preface(seen) => {
                let n = (PREFACE.len() - seen).min(bytes.len());
                let (now, rest) = bytes.split_at(n);
                if PREFACE.get(seen..seen + n) != Some(now) {
                    return Err(Code::PROTOCOL_ERROR);
                }
                *bytes = rest;
                self.input = if seen + n == PREFACE.len() {
                    Input::Frame
                } else {
                    Input::Preface(seen + n)
                };
                Ok(())
            }
            Input::Data(data) => self.data(data, bytes),
            Input::Frame if self.partial.is_empty() => {
                let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
                    self.partial.extend_from_slice(std::mem::take(bytes));
                    return Ok(());
                };
                let header = self.begin_frame(header)?;
                if header.kind == kind::DATA {
                    *bytes = rest;
                    return self.begin_data(header);
                }
                if let Some((payload, rest)) = rest.split_at_checked(header.length as usize) {
                    *bytes = rest;
                    return self.frame(header, payload);
                }
                self.partial.extend_from_slice(std::mem::take(bytes));
                Ok(())
            }
            Input::Frame => self.gather(bytes),
        }
    }

    /// Adds to a frame that has come in part.
    fn gather(&mut self, bytes: &mut &[u8]) -> Result<(), Code> {
        let has_header = self.partial.len() >= HEADER;
        let wanted = match self.partial.first_chunk::<HEADER>() {
            Some(header) => HEADER + Header::parse(header).length as usize,
            None => HEADER,
        };
        let n = (wanted - self.partial.len()).min(bytes.len());
        let (now, rest) = bytes.split_at(n);
        self.partial.extend_from_slice(now);
        *bytes = rest;
        if self.partial.len() < wanted {
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        let Some((header, payload)) = partial.split_first_chunk::<HEADER>() else {
            self.partial = partial;
            return Ok(());
        };
        let header = if has_header {
            Header::parse(header)
        } else {
            self.begin_frame(header)?
        };
        if header.kind == kind::DATA {
            return self.begin_data(header);
        }
        if payload.len() < header.length as usize {
            // The header alone was wanted, and has more behind it.
            self.partial = partial;
            return Ok(());
        }
        let done = self.frame(header, payload);
        // Its memory is used again, unless it is much.
        partial.clear();
        if partial.capacity() <= 1024 && self.streams.len() > 0 {
            self.partial = partial;
        }
        done
    }

    /// What can be wrong with a frame by its header alone.
    fn begin_frame(&mut self, header: &[u8; HEADER]) -> Result<Header, Code> {
        let header = Header::parse(header);
        if header.length as usize > MAX_FRAME {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        // RFC 9113 section 3.4: the first is SETTINGS.
        let is_settings = header.kind == kind::SETTINGS && !header.has(flag::ACK);
        if !self.has_settings && !is_settings {
            return Err(Code::PROTOCOL_ERROR);
        }
        // Section 6.10: nothing comes between the pieces of a header block.
        match &self.block {
            Some(block) if header.kind != kind::CONTINUATION || header.stream != block.stream() => {
                Err(Code::PROTOCOL_ERROR)
            }
            None if header.kind == kind::CONTINUATION => Err(Code::PROTOCOL_ERROR),
            _ => Ok(header),
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        match header.kind {
            kind::HEADERS => self.headers(header, payload),
            kind::CONTINUATION => self.continuation(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            kind::RST_STREAM => self.rst_stream(header, payload),
            kind::SETTINGS => self.settings(header, payload),
            kind::PING => self.ping(header, payload),
            kind::GOAWAY => self.goaway(header, payload),
            kind::PRIORITY if header.stream == 0 => Err(Code::PROTOCOL_ERROR),
            kind::PRIORITY if payload.len() != 5 => {
                if let Some(key) = self.streams.find(header.stream) {
                    self.give_up(key, Code::FRAME_SIZE_ERROR);
                }
                Ok(())
            }
            // We never allow it (section 8.4).
            kind::PUSH_PROMISE => Err(Code::PROTOCOL_ERROR),
            // PRIORITY means nothing any more, and unknown kinds never did (section 5.5).
            _ => Ok(()),
        }
    }

    // === DATA ===

    fn begin_data(&mut self, header: Header) -> Result<(), Code> {
        let length = header.length;
        if header.stream == 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        // All of it counts, for the connection too, whoever wants it (section 6.9).
        self.window_in -= i64::from(length);
        if self.window_in < 0 {
            return Err(Code::FLOW_CONTROL_ERROR);
        }
        self.heard += 1;
        let is_padded = header.has(flag::PADDED);
        if is_padded && length == 0 {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        let key = self.data_of(header)?;
        match key {
            Some(key) => self.streams[key].window_in -= i64::from(length),
            None => self.free_connection(length),
        }
        let data = Data {
            key,
            content: length - u32::from(is_padded),
            padding: 0,
            is_padded,
            has_end: header.has(flag::END_STREAM),
        };
        self.input = Input::Data(data);
        if length == 0 {
            return self.data(data, &mut &[][..]);
        }
        Ok(())
    }

    /// Whose DATA it is, if somebody wants it.
    fn data_of(&mut self, header: Header) -> Result<Option<Key>, Code> {
        let Some(key) = self.streams.find(header.stream) else {
            self.expect_late(header.stream, header.has(flag::END_STREAM))?;
            return Ok(None);
        };
        let stream = &self.streams[key];
        if stream.has_end {
            return Err(Code::STREAM_CLOSED);
        }
        if !stream.has_head {
            self.give_up(key, Code::PROTOCOL_ERROR);
            return Ok(None);
        }
        if header.length > 0 && stream.window_in < i64::from(header.length) {
            self.give_up(key, Code::FLOW_CONTROL_ERROR);
            return Ok(None);
        }
        Ok(Some(key))
    }

    /// Takes what is there of a DATA frame.
    fn data(&mut self, mut data: Data, bytes: &mut &[u8]) -> Result<(), Code> {
        // What is done here with its stream is settled here, too.
        self.input = Input::Frame;
        if data.is_padded {
            let Some((padding, rest)) = bytes.split_first() else {
                self.input = Input::Data(data);
                return Ok(());
            };
            data.is_padded = false;
            data.padding = u32::from(*padding);
            let content = data.content.checked_sub(data.padding);
            data.content = content.ok_or(Code::PROTOCOL_ERROR)?;
            *bytes = rest;
            // Nobody reads it, so it is free again at once.
            if let Some(key) = data.key {
                self.free(key, data.padding + 1);
            }
        }
        if data.content > 0 {
            let n = bytes.len().min(data.content as usize);
            let (content, rest) = bytes.split_at(n);
            *bytes = rest;
            data.content -= n as u32;
            data.key = data
                .key
                .and_then(|key| self.content(key, content, data.content));
        }
        if data.content == 0 {
            let n = bytes.len().min(data.padding as usize);
            *bytes = bytes.get(n..).unwrap_or_default();
            data.padding -= n as u32;
        }
        if data.content > 0 || data.padding > 0 {
            self.input = Input::Data(data);
            return Ok(());
        }
        if let Some(key) = data.key.filter(|_| data.has_end) {
            self.end_of(key);
        }
        Ok(())
    }

    /// Gives the stream these bytes, behind which `rest` of their frame come. Whether it goes on.
    fn content(&mut self, key: Key, bytes: &[u8], rest: u32) -> Option<Key> {
        let stream = &mut self.streams[key];
        let n = bytes.len() as u64;
        let is_gone = stream.error.is_some();
        if is_gone || stream.due.is_some_and(|due| due < n) {
            // More than was said (section 8.1.1), or given up while it was passing.
            if !is_gone {
                self.give_up(key, Code::PROTOCOL_ERROR);
            }
            self.free_connection(bytes.len() as u32 + rest);
            return None;
        }
        stream.due = stream.due.map(|due| due - n);
        stream.inbox.push(bytes);
        stream.wake_reader();
        Some(key)
    }

    /// The other end has said all that it will say on this stream.
    pub(super) fn end_of(&mut self, key: Key) {
        let stream = &mut self.streams[key];
        if stream.error.is_some() {
            return;
        }
        if stream.due.is_some_and(|due| due > 0) {
            self.give_up(key, Code::PROTOCOL_ERROR);
            return;
        }
        stream.has_end = true;
        stream.wake_reader();
        self.close_if_over(key);
    }

    /// A frame for a stream that is not there: all is well if it was reset here, and if it may not have been
    /// opened it is not.
    pub(super) fn expect_late(&mut self, id: u32, has_end: bool) -> Result<(), Code> {
        if self.is_idle(id) {
            return Err(Code::PROTOCOL_ERROR);
        }
        if self.role == Role::Client {
            return Ok(());
        }
        let at = self.given_up.iter().position(|given_up| *given_up == id);
        let at = at.ok_or(Code::STREAM_CLOSED)?;
        if has_end {
            // No more comes of it, so it takes nobody's place: those that have not ended are as many as the other end may
            // have open.
            self.given_up.remove(at);
        }
        Ok(())
    }

    /// Whether this stream was never opened (section 5.1.1).
    fn is_idle(&self, id: u32) -> bool {
        let is_client_s = id % 2 == 1;
        match self.role {
            Role::Server => !is_client_s || id > self.last_theirs,
            Role::Client => !is_client_s || id >= self.next_ours,
        }
    }

    // === windows ===

    /// So much of the stream was read, or need not be.
    pub(super) fn free(&mut self, key: Key, n: u32) {
        let window = self.limits.stream_window;
        let stream = &mut self.streams[key];
        stream.freed += n;
        // By halves: a frame for each read would double the frames.
        if stream.freed >= window / 2 && !stream.has_end && stream.error.is_none() {
            let freed = std::mem::take(&mut stream.freed);
            stream.window_in += i64::from(freed);
            frame::window_update(&mut self.out, stream.id, freed);
            self.touch();
        }
        self.free_connection(n);
    }

    /// So much of the connection's window is free again.
    pub(super) fn free_connection(&mut self, n: u32) {
        self.freed += n;
        if self.freed >= self.limits.connection_window.max(FIRST_WINDOW) / 2 {
            let freed = std::mem::take(&mut self.freed);
            self.window_in += i64::from(freed);
            frame::window_update(&mut self.out, 0, freed);
            self.touch();
        }
    }

    fn window_update(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let increment: &[u8; 4] = payload.try_into().map_err(|_| Code::FRAME_SIZE_ERROR)?;
        let increment = i64::from(u32::from_be_bytes(*increment) & (u32::MAX >> 1));
        if header.stream == 0 {
            if increment == 0 {
                return Err(Code::PROTOCOL_ERROR);
            }
            self.window_out += increment;
            if self.window_out > MAX_WINDOW {
                return Err(Code::FLOW_CONTROL_ERROR);
            }
            self.unblock();
            return Ok(());
        }
        let Some(key) = self.streams.find(header.stream) else {
            // Of a stream that has ended it may come late (section 5.1).
            return if self.is_idle(header.stream) {
                Err(Code::PROTOCOL_ERROR)
            } else {
                Ok(())
            };
        };
        let stream = &mut self.streams[key];
        stream.window_out += increment;
        if increment == 0 {
            self.give_up(key, Code::PROTOCOL_ERROR);
        } else if stream.window_out > MAX_WINDOW {
            self.give_up(key, Code::FLOW_CONTROL_ERROR);
        } else {
            stream.wake_writer();
        }
        Ok(())
    }

    // === the rest ===

    fn rst_stream(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let code: &[u8; 4] = payload.try_into().map_err(|_| Code::FRAME_SIZE_ERROR)?;
        let code = Code(u32::from_be_bytes(*code));
        if self.is_idle(header.stream) {
            return Err(Code::PROTOCOL_ERROR);
        }
        let Some(key) = self.streams.find(header.stream) else {
            return Ok(());
        };
        self.heard += 1;
        if let Some(at) = self.accepted.iter().position(|accepted| *accepted == key) {
            // Nobody has looked at it yet, and nobody will.
            self.accepted.remove(at);
            self.forget(key);
            return Ok(());
        }
        self.streams[key].fail(StreamError::Reset(code));
        self.close(key);
        Ok(())
    }

    fn settings(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        if header.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Code::FRAME_SIZE_ERROR);
            }
            self.acknowledged();
            return Ok(());
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        let mut window = None;
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err(Code::FLOW_CONTROL_ERROR);
                }
                // Said again and again in one frame it would cost a walk through all streams each time.
                setting::INITIAL_WINDOW_SIZE => window = Some(value),
                id => self.setting(id, value)?,
            }
        }
        if let Some(window) = window {
            self.first_window_is(window)?;
        }
        if !std::mem::replace(&mut self.has_settings, true) {
            let said = settings
                .iter()
                .any(|s| s[..2] == setting::MAX_CONCURRENT_STREAMS.to_be_bytes());
            if !said {
                // Then there is no limit (section 6.5.2).
                self.theirs.max_streams = u32::MAX;
            }
        }
        self.opened_up();
        frame::settings_ack(&mut self.out);
        self.touch();
        Ok(())
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), Code> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_max_table(value as usize),
            // Section 6.5.2: a server does not push to itself.
            setting::ENABLE_PUSH if value > 1 || value == 1 && self.role == Role::Client => {
                return Err(Code::PROTOCOL_ERROR);
            }
            setting::MAX_CONCURRENT_STREAMS => self.theirs.max_streams = value,
            setting::MAX_FRAME_SIZE => {
                if !(16_384..=16_777_215).contains(&value) {
                    return Err(Code::PROTOCOL_ERROR);
                }
                self.theirs.max_frame = MAX_FRAME;
            }
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Code::PROTOCOL_ERROR),
            setting::ENABLE_CONNECT_PROTOCOL => self.theirs.connects = value == 1,
            _ => {}
        }
        Ok(())
    }

    /// What each stream may send before the other end says more (section 6.9.2).
    fn first_window_is(&mut self, window: u32) -> Result<(), Code> {
        let change = i64::from(window) - i64::from(self.theirs.window);
        self.theirs.window = window;
        for key in self.streams.keys() {
            let stream = &mut self.streams[key];
            // It may become negative.
            stream.window_out += change;
            if stream.window_out > MAX_WINDOW {
                return Err(Code::FLOW_CONTROL_ERROR);
            }
            stream.wake_writer();
        }
        Ok(())
    }

    /// The other end goes by our settings from now on.
    fn acknowledged(&mut self) {
        if std::mem::replace(&mut self.is_acknowledged, true) {
            return;
        }
        let change = i64::from(self.limits.stream_window) - i64::from(self.first_window());
        if change == 0 {
            return;
        }
        for key in self.streams.keys() {
            self.streams[key].window_in += change;
        }
    }

    /// What a stream that was opened before our settings are known may bring: what they say, or what holds
    /// without them, as we cannot know which the other end goes by.
    fn first_window(&self) -> u32 {
        self.limits.stream_window.max(FIRST_WINDOW)
    }

    /// What a stream that is opened now may bring.
    pub(super) fn window_of_new(&self) -> i64 {
        if self.is_acknowledged {
            self.limits.stream_window.into()
        } else {
            self.first_window().into()
        }
    }

    fn ping(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let payload: &[u8; 8] = payload.try_into().map_err(|_| Code::FRAME_SIZE_ERROR)?;
        if header.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        if header.has(flag::ACK) {
            self.pong(*payload);
        } else {
            frame::ping(&mut self.out, *payload, flag::ACK);
            self.touch();
        }
        Ok(())
    }

    fn goaway(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let Some((first, _)) = payload.split_first_chunk::<8>() else {
            return Err(Code::FRAME_SIZE_ERROR);
        };
        if header.stream != 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *first;
        let last = u32::from_be_bytes([l0, l1, l2, l3]) & (u32::MAX >> 1);
        let code = Code(u32::from_be_bytes([c0, c1, c2, c3]));
        self.their_goodbye = Some(code);
        if self.role == Role::Client {
            for key in self.streams.keys() {
                if self.streams[key].id > last {
                    // Section 6.8: it was not and will not be looked at.
                    self.streams[key].fail(StreamError::Goodbye(code));
                    self.close(key);
                }
            }
        }
        self.opened_up();
        self.touch();
        Ok(())
    }

    /// One more piece of a header block.
    fn continuation(&mut self, header: Header, payload: &[u8]) -> Result<(), Code> {
        let Some(mut block) = self.block.take() else {
            return Err(Code::PROTOCOL_ERROR);
        };
        if !block.add(payload, CONTINUATIONS) {
            return Err(Code::ENHANCE_YOUR_CALM);
        }
        if header.has(flag::END_HEADERS) {
            self.block_of(block.stream(), block.has_end(), block.bytes())
        } else {
            self.block = Some(block);
            Ok(())
        }
    }

    /// Ends the connection: `code` says why.
    pub(in crate::http2) fn fail(&mut self, code: Code) {
        if self.end.is_none() {
            self.say_goodbye_for(code);
            self.over(End::Fault(code));
        }
    }
}
