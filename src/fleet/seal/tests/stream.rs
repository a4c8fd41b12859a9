//! Streams: greetings, keys, records.

use super::*;

type End = (StreamSeal, StreamOpen);

/// Peer 1 connected to peer 2.
fn streams() -> (End, End) {
    streams_of(&ring(&[NEW]), &ring(&[NEW]), 1)
}

/// `chance` makes the greetings' random bytes.
fn streams_of(here: &Keyring, there: &Keyring, chance: u8) -> (End, End) {
    let first = Greeting::first(here, PeerId(1), [chance; 32]);
    let heard = Greeting::parse(&first.to_bytes(), there).unwrap();
    let answer = heard.answer(PeerId(2), [chance ^ 0x80; 32]);
    let came = Greeting::parse(&answer.to_bytes(), here).unwrap();
    assert_eq!((heard.sender(), came.sender()), (PeerId(1), PeerId(2)));
    let client = first.connected(&came, here).unwrap();
    let server = answer.accepted(&heard, there).unwrap();
    (client, server)
}

fn record(seal: &mut StreamSeal, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal.seal(plain, &mut out).unwrap();
    out
}

/// All records that are whole, and what came of them in the end.
fn records(open: &mut StreamOpen, bytes: &[u8]) -> (Vec<Vec<u8>>, Result<(), Refusal>) {
    open.push(bytes);
    let mut all = Vec::new();
    loop {
        match open.next_record() {
            Ok(Some(record)) => all.push(record),
            Ok(None) => return (all, Ok(())),
            Err(refusal) => return (all, Err(refusal)),
        }
    }
}

#[test]
fn both_speak_and_both_hear() {
    let (mut client, mut server) = streams();
    for plain in [
        &b""[..],
        b"who is there?",
        &vec![7; 65_535],
        &vec![8; MAX_RECORD],
        b"",
    ] {
        let sealed = record(&mut client.0, plain);
        assert_eq!(sealed.len(), 4 + plain.len() + 16);
        assert_eq!(
            records(&mut server.1, &sealed),
            (vec![plain.to_vec()], Ok(()))
        );
        let sealed = record(&mut server.0, plain);
        assert_eq!(
            records(&mut client.1, &sealed),
            (vec![plain.to_vec()], Ok(()))
        );
    }
    assert!(client.1.is_whole() && server.1.is_whole());
}

#[test]
fn bytes_are_those_of_the_description() {
    // By Python's `hmac` and `cryptography`, from the text of this module.
    let keyring = ring(&["0123456789abcdef"]);
    let first = Greeting::first(&keyring, PeerId(1), [0x11; 32]);
    let greeting = format!("025badf422f8243a930000000000000001{}", "11".repeat(32));
    assert_eq!((hex(&first.to_bytes()), Greeting::BYTES), (greeting, 49));
    let answer = first.answer(PeerId(2), [0x22; 32]);
    let mut client = first.connected(&answer, &keyring).unwrap().0;
    let mut server = answer.accepted(&first, &keyring).unwrap().0;
    assert_eq!(
        hex(&record(&mut client, b"who is there?")),
        "0000001ddcba815cb1281c174a83dd7315246ceeadbeb994b19041907d340d1913"
    );
    assert_eq!(
        hex(&record(&mut server, b"")),
        "000000103ecc815ef909c27ad6788832b222922d"
    );
}

#[test]
fn record_that_is_too_long_is_not_sealed() {
    let (mut client, mut server) = streams();
    let mut out = b"before".to_vec();
    let long = client.0.seal(&vec![0; MAX_RECORD + 1], &mut out);
    assert_eq!((long, &out[..]), (Err(NotSealed::Long), &b"before"[..]));
    client.0.seal(b"next", &mut out).unwrap();
    assert_eq!(records(&mut server.1, &out[6..]).0, [b"next"]);
}

#[test]
fn stream_that_is_cut_anywhere_gives_what_was_whole() {
    let plain = [&b"first"[..], b"", b"the last of them"];
    let (mut client, _) = streams();
    let sealed = plain.map(|p| record(&mut client.0, p));
    let ends: Vec<usize> = sealed
        .iter()
        .scan(0, |end, s| {
            *end += s.len();
            Some(*end)
        })
        .collect();
    let bytes = sealed.concat();
    for cut in 0..=bytes.len() {
        let (_, (_, mut open)) = streams();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let (got, end) = records(&mut open, &bytes[..cut]);
        assert_eq!(
            (&got[..], end),
            (&plain.map(<[u8]>::to_vec)[..whole], Ok(()))
        );
        assert_eq!(open.is_whole(), cut == 0 || ends.contains(&cut), "{cut}");
        // And goes on where it was cut.
        let (rest, end) = records(&mut open, &bytes[cut..]);
        assert_eq!((got.len() + rest.len(), end), (3, Ok(())));
    }
    let (_, (_, mut open)) = streams();
    let mut got = Vec::new();
    for byte in bytes {
        got.extend(records(&mut open, &[byte]).0);
    }
    assert_eq!(got, plain);
}

#[test]
fn every_bit_of_a_record_counts() {
    let (mut client, _) = streams();
    let sealed = record(&mut client.0, b"a drain");
    for bit in 0..sealed.len() * 8 {
        let (_, (_, mut open)) = streams();
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let length = u32::from_be_bytes(changed[..4].try_into().unwrap()) as usize;
        changed.resize(sealed.len().max(4 + length.min(MAX_RECORD + 16)), 0);
        let expected = match length {
            0..16 => Refusal::Short,
            _ if length > MAX_RECORD + 16 => Refusal::Long,
            _ => Refusal::Forged,
        };
        assert_eq!(
            records(&mut open, &changed),
            (vec![], Err(expected)),
            "bit {bit}"
        );
        // It is over: the good one comes too late.
        assert_eq!(
            records(&mut open, &sealed),
            (vec![], Err(expected)),
            "bit {bit}"
        );
        assert!(!open.is_whole());
    }
}

#[test]
fn records_come_in_their_order_and_once() {
    let (mut client, _) = streams();
    let [a, b, c] = [b"a", b"b", b"c"].map(|p| record(&mut client.0, p));
    for (bytes, whole) in [
        ([&b[..], &a, &c].concat(), 0),
        ([&b[..], &c].concat(), 0),
        ([&a[..], &c, &b].concat(), 1),
        ([&a[..], &c].concat(), 1),
        ([&a[..], &a, &b].concat(), 1),
        ([&a[..], &b, &a].concat(), 2),
        ([&a[..], &b, &b, &c].concat(), 2),
    ] {
        let (_, (_, mut open)) = streams();
        let (got, end) = records(&mut open, &bytes);
        assert_eq!((got.len(), end), (whole, Err(Refusal::Forged)));
    }
}

#[test]
fn stream_that_is_sent_back_is_refused() {
    let (mut client, mut server) = streams();
    let (of_client, of_server) = (record(&mut client.0, b"x"), record(&mut server.0, b"x"));
    assert_ne!(of_client, of_server);
    assert_eq!(
        records(&mut client.1, &of_client),
        (vec![], Err(Refusal::Forged))
    );
    assert_eq!(
        records(&mut server.1, &of_server),
        (vec![], Err(Refusal::Forged))
    );

    // The greeting too, as it was or as that of another.
    let keyring = ring(&[NEW]);
    let first = Greeting::first(&keyring, PeerId(1), [1; 32]);
    assert_eq!(first.connected(&first, &keyring).unwrap_err(), Refusal::Own);
    assert_eq!(first.accepted(&first, &keyring).unwrap_err(), Refusal::Own);
    let mut mirrored = first.to_bytes();
    mirrored[16] = 2;
    let mirrored = Greeting::parse(&mirrored, &keyring).unwrap();
    let (mut seal, mut open) = first.connected(&mirrored, &keyring).unwrap();
    let echo = record(&mut seal, b"x");
    assert_eq!(records(&mut open, &echo), (vec![], Err(Refusal::Forged)));
}

#[test]
fn stream_that_was_recorded_is_worth_nothing() {
    let keyring = ring(&[NEW]);
    let (mut client, mut server) = streams();
    let (of_client, of_server) = (record(&mut client.0, b"x"), record(&mut server.0, b"x"));
    // To the server: its own random bytes are new.
    let first = Greeting::first(&keyring, PeerId(1), [1; 32]);
    let answer = first.answer(PeerId(2), [9; 32]);
    let mut open = answer.accepted(&first, &keyring).unwrap().1;
    assert_eq!(
        records(&mut open, &of_client),
        (vec![], Err(Refusal::Forged))
    );
    // To the client: likewise.
    let first = Greeting::first(&keyring, PeerId(1), [9; 32]);
    let answer = first.answer(PeerId(2), [0x81; 32]);
    let mut open = first.connected(&answer, &keyring).unwrap().1;
    assert_eq!(
        records(&mut open, &of_server),
        (vec![], Err(Refusal::Forged))
    );
}

#[test]
fn two_that_connected_to_each_other_do_not_meet_crosswise() {
    let keyring = ring(&[NEW]);
    let one = Greeting::first(&keyring, PeerId(1), [1; 32]);
    let other = Greeting::first(&keyring, PeerId(2), [2; 32]);
    let (mut one_seal, mut one_open) = one.connected(&other, &keyring).unwrap();
    let (mut other_seal, mut other_open) = other.connected(&one, &keyring).unwrap();
    let (to_other, to_one) = (record(&mut one_seal, b"x"), record(&mut other_seal, b"x"));
    assert_eq!(
        records(&mut one_open, &to_one),
        (vec![], Err(Refusal::Forged))
    );
    assert_eq!(
        records(&mut other_open, &to_other),
        (vec![], Err(Refusal::Forged))
    );
}

#[test]
fn every_bit_of_a_greeting_counts() {
    let keyring = ring(&[NEW]);
    let first = Greeting::first(&keyring, PeerId(1), [1; 32]);
    let answer = first.answer(PeerId(2), [2; 32]);
    let of_client = record(&mut first.connected(&answer, &keyring).unwrap().0, b"x");
    let of_server = record(&mut answer.accepted(&first, &keyring).unwrap().0, b"x");
    for bit in 0..Greeting::BYTES * 8 {
        let change = |greeting: Greeting| {
            let mut bytes = greeting.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Greeting::parse(&bytes, &keyring)
        };
        let (first_came, answer_came) = match (bit / 8, change(first), change(answer)) {
            (0, one, other) => {
                let refusal = Err(Refusal::Version(2 ^ (1 << bit)));
                assert_eq!((one, other), (refusal, refusal));
                continue;
            }
            (1..5, one, other) => {
                assert_eq!((one, other), (Err(Refusal::Fleet), Err(Refusal::Fleet)));
                continue;
            }
            (5..9, one, other) => {
                assert_eq!((one, other), (Err(Refusal::Key), Err(Refusal::Key)));
                continue;
            }
            (_, one, other) => (one.unwrap(), other.unwrap()),
        };
        let mut open = answer.accepted(&first_came, &keyring).unwrap().1;
        assert_eq!(
            records(&mut open, &of_client),
            (vec![], Err(Refusal::Forged)),
            "{bit}"
        );
        let mut open = first.connected(&answer_came, &keyring).unwrap().1;
        assert_eq!(
            records(&mut open, &of_server),
            (vec![], Err(Refusal::Forged)),
            "{bit}"
        );
    }
}

#[test]
fn who_does_not_have_the_secret_is_found_out_by_the_first_record() {
    let (ours, theirs) = (ring(&[NEW]), ring(&[OLD]));
    let first = Greeting::first(&ours, PeerId(1), [1; 32]);
    assert_eq!(
        Greeting::parse(&first.to_bytes(), &theirs),
        Err(Refusal::Key)
    );
    let elsewhere = ring_of("other", &[NEW]);
    assert_eq!(
        Greeting::parse(&first.to_bytes(), &elsewhere),
        Err(Refusal::Fleet)
    );

    // Who claims to have it.
    let stranger = Greeting::first(&theirs, PeerId(2), [2; 32]);
    let answer = first.answer(PeerId(2), [2; 32]);
    let mut open = first.connected(&answer, &ours).unwrap().1;
    let mut guess = Greeting::first(&theirs, PeerId(1), [1; 32]);
    let (mut seal, _) = stranger.accepted(&guess, &theirs).unwrap();
    assert_eq!(
        records(&mut open, &record(&mut seal, b"x")),
        (vec![], Err(Refusal::Forged))
    );

    // An answer of another key than was asked for, though both are known.
    let both = ring(&[NEW, OLD]);
    guess = Greeting::first(&both, PeerId(1), [1; 32]);
    assert_eq!(guess.connected(&stranger, &both).unwrap_err(), Refusal::Key);
    assert_eq!(stranger.accepted(&guess, &both).unwrap_err(), Refusal::Key);
    // The secret was taken away between the two.
    assert_eq!(first.connected(&answer, &theirs).unwrap_err(), Refusal::Key);
}

#[test]
fn peers_amid_a_rotation_understand_each_other() {
    let steps: [&[&str]; 4] = [&[OLD], &[OLD, NEW], &[NEW, OLD], &[NEW]];
    for pair in steps.windows(2) {
        for (here, there) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let (mut client, mut server) = streams_of(&ring(here), &ring(there), 1);
            let sealed = record(&mut client.0, b"x");
            assert_eq!(records(&mut server.1, &sealed).0, [b"x"]);
            let sealed = record(&mut server.0, b"y");
            assert_eq!(records(&mut client.1, &sealed).0, [b"y"]);
        }
    }
}

#[test]
fn what_nobody_takes_out_has_an_end() {
    let (mut client, (_, mut open)) = streams();
    let longest = record(&mut client.0, &vec![7; MAX_RECORD]);
    let next = record(&mut client.0, &vec![8; MAX_RECORD]);
    // All but a byte of one, and a read of 64 KiB.
    open.push(&longest[..longest.len() - 1]);
    assert_eq!(open.next_record(), Ok(None));
    let rest = [&longest[longest.len() - 1..], &next[..]].concat();
    let (read, last) = rest.split_at(64 * 1024);
    assert_eq!(records(&mut open, read).0, [vec![7; MAX_RECORD]]);
    assert_eq!(records(&mut open, last).0, [vec![8; MAX_RECORD]]);
    assert!(open.is_whole());

    open.push(&longest);
    open.push(&longest);
    open.push(b"");
    open.push(b"x");
    assert_eq!(open.next_record(), Err(Refusal::Long));
    // A length alone is enough to know.
    let (_, (_, mut open)) = streams();
    open.push(&u32::MAX.to_be_bytes());
    assert_eq!(open.next_record(), Err(Refusal::Long));
}

#[test]
fn counters_have_an_end() {
    let (mut client, mut server) = streams();
    client.0.skip_to(u64::MAX);
    server.1.skip_to(u64::MAX);
    let last = record(&mut client.0, b"last");
    assert_eq!(client.0.seal(b"x", &mut Vec::new()), Err(NotSealed::Spent));
    assert_eq!(records(&mut server.1, &last).0, [b"last"]);
    assert_eq!(
        records(&mut server.1, &last),
        (vec![], Err(Refusal::Forged))
    );
}
