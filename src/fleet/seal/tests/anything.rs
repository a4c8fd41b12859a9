//! Whatever is sent, cut, mixed and repeated.

use std::collections::HashSet;

use proptest::prelude::*;

use super::super::datagram::MIN_DATAGRAM;
use super::super::window::{SIZE, Window};
use super::*;

proptest! {
    #[test]
    fn what_one_seals_the_other_opens(
        sender in 1..=u64::MAX,
        session: [u8; 8],
        unix_ms: u64,
        is_facts: bool,
        payload in prop::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD),
    ) {
        let kind = if is_facts { Kind::Facts } else { Kind::Membership };
        let sender = PeerId(sender);
        let mut sealer = Sealer::new(&ring(&[OLD]), sender, session);
        let mut out = Vec::new();
        sealer.seal(kind, unix_ms, &payload, &mut out).unwrap();
        prop_assert_eq!(out.len(), MIN_DATAGRAM + payload.len());
        let opened = opener(&[NEW, OLD]).open(&out, NOW);
        prop_assert_eq!(opened, Ok(Opened { sender, session, kind, unix_ms, is_latest: true, payload }));
    }

    #[test]
    fn nothing_else_is_opened(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        claimed in 0..=33_usize,
    ) {
        // So much of it is as of a real one.
        let real = sealed(&mut sealer(&[NEW], 7, 1), b"x");
        let claimed = claimed.min(bytes.len());
        bytes[..claimed].copy_from_slice(&real[..claimed]);
        let mut opener = opener(&[NEW]);
        prop_assert!(opener.open(&bytes, NOW).is_err());
        prop_assert_eq!(opener.sessions(), 0);
    }

    #[test]
    fn each_datagram_is_heard_at_most_once(
        order in prop::collection::vec((0..3_usize, 0..40_usize), 0..200),
    ) {
        let mut opener = opener(&[NEW]);
        let all: Vec<Vec<Vec<u8>>> = (0..3)
            .map(|session| {
                let mut sealer = sealer(&[NEW], 7, session);
                (0..40).map(|_| sealed(&mut sealer, b"x")).collect()
            })
            .collect();
        let mut heard = HashSet::new();
        for (session, n) in order {
            let opened = opener.open(&all[session][n], NOW);
            // The window is longer than all of them.
            prop_assert_eq!(opened.is_ok(), heard.insert((session, n)));
        }
    }

    #[test]
    fn window_is_what_it_says(
        start in prop::sample::select(vec![0, 1, 1 << 32, u64::MAX - 4000]),
        steps in prop::collection::vec((any::<bool>(), 0..3000_u64), 0..200),
    ) {
        let mut window = Window::new();
        let mut heard = HashSet::new();
        let mut highest: Option<u64> = None;
        for (is_near, step) in steps {
            let counter = match highest {
                Some(highest) if is_near => highest.saturating_add(step % 4).saturating_sub(step % 1100),
                _ => start.saturating_add(step),
            };
            let is_late = highest.is_some_and(|h| counter <= h && h - counter >= SIZE);
            let is_new = !is_late && !heard.contains(&counter);
            prop_assert_eq!(window.is_new(counter), is_new, "{}", counter);
            if is_new {
                window.hear(counter);
                heard.insert(counter);
                highest = highest.max(Some(counter));
            }
        }
    }

    #[test]
    fn stream_in_any_pieces_is_one_stream(
        plain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        cuts in prop::collection::vec(1..400_usize, 1..20),
    ) {
        let keyring = ring(&[NEW]);
        let first = Greeting::first(&keyring, PeerId(1), [1; 32]);
        let answer = first.answer(PeerId(2), [2; 32]);
        let (mut seal, _) = first.connected(&answer, &keyring).unwrap();
        let (_, mut open) = answer.accepted(&first, &keyring).unwrap();
        let mut bytes = Vec::new();
        for record in &plain {
            seal.seal(record, &mut bytes).unwrap();
        }
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            open.push(piece);
            while let Some(record) = open.next_record().unwrap() {
                got.push(record);
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(open.is_whole());
        prop_assert_eq!(got, plain);
    }
}
