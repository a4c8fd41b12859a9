use proptest::prelude::*;

use super::*;

type Owned = (Vec<u8>, Vec<u8>);

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).unwrap();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&text(pair), 16).unwrap())
        .collect()
}

fn owned(fields: &[(&str, &str)]) -> Vec<Owned> {
    fields
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Owned>, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| {
        assert_eq!(field.id, statics::id_of(field.name));
        let is_name_sound = field.id != 0 || sound::is_name(field.name);
        assert_eq!(
            field.is_sound,
            is_name_sound && sound::is_value(field.value)
        );
        fields.push((field.name.to_vec(), field.value.to_vec()));
    })?;
    Ok(fields)
}

fn encoded(encoder: &mut Encoder, fields: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(&mut out, statics::id_of(name), name, value, Indexing::Add);
    }
    out
}

fn size(fields: &[Owned]) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + 32)
        .sum()
}

/// What the tables of both sides hold, as it is in appendix C: newest first.
fn assert_table(table: &table::Table, expected: &[(&str, &str)]) {
    let held: Vec<Owned> = (0..table.len())
        .map(|age| table.row(age).unwrap())
        .map(|row| (row.name.to_vec(), row.value.to_vec()))
        .collect();
    assert_eq!(held, owned(expected));
    assert_eq!(table.size(), size(&held));
}

#[test]
fn literals_of_appendix_c_2_are_decoded() {
    for (hex, name, value, is_added) in [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key",
            "custom-header",
            true,
        ),
        (
            "040c 2f73 616d 706c 652f 7061 7468",
            ":path",
            "/sample/path",
            false,
        ),
        (
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            "password",
            "secret",
            false,
        ),
        ("82", ":method", "GET", false),
    ] {
        let mut decoder = Decoder::new(4096);
        assert_eq!(
            decoded(&mut decoder, &bytes(hex)),
            Ok(owned(&[(name, value)]))
        );
        let table = [(name, value)];
        assert_table(decoder.table(), if is_added { &table } else { &[] });
    }
}

#[test]
fn requests_of_appendix_c_3_and_c_4_are_decoded_and_those_of_c_3_are_encoded() {
    let common = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ];
    let with = |field| common.into_iter().chain([field]).collect::<Vec<_>>();
    let third = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    let table = [
        ("custom-key", "custom-value"),
        ("cache-control", "no-cache"),
        (":authority", "www.example.com"),
    ];
    let cases = [
        (
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            common.to_vec(),
            &table[2..],
        ),
        (
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8286 84be 5886 a8eb 1064 9cbf",
            with(("cache-control", "no-cache")),
            &table[1..],
        ),
        (
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            third.to_vec(),
            &table[..],
        ),
    ];
    let mut decoders = [Decoder::new(4096), Decoder::new(4096)];
    let mut encoder = Encoder::new();
    for (plain, huffman, fields, table) in cases {
        for (decoder, hex) in decoders.iter_mut().zip([plain, huffman]) {
            assert_eq!(decoded(decoder, &bytes(hex)), Ok(owned(&fields)));
            assert_table(decoder.table(), table);
        }
        assert_eq!(encoded(&mut encoder, &owned(&fields)), bytes(plain));
        assert_table(encoder.table(), table);
    }
}

#[test]
fn responses_of_appendix_c_5_and_c_6_are_decoded_with_their_evictions() {
    let first = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let second = [(":status", "307"), first[1], first[2], first[3]];
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let third = [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", cookie),
    ];
    type Case<'a> = (
        &'a str,
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a [(&'a str, &'a str)],
    );
    let cases: [Case<'_>; 3] = [
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
             6c65 2e63 6f6d",
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            &first,
            &[first[3], first[2], first[1], first[0]],
        ),
        (
            "4803 3330 37c1 c0bf",
            "4883 640e ffc1 c0bf",
            &second,
            &[second[0], first[3], first[2], first[1]],
        ),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
             3d31",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            &third,
            &[third[5], third[4], third[2]],
        ),
    ];
    let mut decoders = [Decoder::new(4096), Decoder::new(4096)];
    for decoder in &mut decoders {
        // The examples have a table of 256 bytes.
        assert_eq!(decoded(decoder, &[0x3f, 0xe1, 0x01]), Ok(vec![]));
    }
    for (plain, huffman, fields, table) in cases {
        for (decoder, hex) in decoders.iter_mut().zip([plain, huffman]) {
            assert_eq!(decoded(decoder, &bytes(hex)), Ok(owned(fields)));
            assert_table(decoder.table(), table);
        }
    }
    // The last one is larger than half of the table, so our encoder writes another block there.
    let mut encoder = Encoder::new();
    encoder.set_max_table(256);
    let mut out = encoded(&mut encoder, &owned(&first));
    assert_eq!(out.split_off(3), bytes(cases[0].0));
    assert_eq!(out, [0x3f, 0xe1, 0x01]);
    assert_eq!(encoded(&mut encoder, &owned(&second)), bytes(cases[1].0));
}

#[test]
fn a_field_evicts_the_entry_that_its_name_is_of() {
    let mut decoder = Decoder::new(4096);
    // A table of 64 bytes; name of 3, value of 29 bytes: it is full.
    let mut block = vec![0x3f, 0x21, 0x40, 3, b'a', b'b', b'c', 29];
    block.extend([b'v'; 29]);
    // Twice its own name with another value.
    block.extend([0x7e, 1, b'w', 0x7e, 2, b'x', b'y', 0xbe]);
    let fields = decoded(&mut decoder, &block).unwrap();
    assert_eq!(
        fields[1..],
        owned(&[("abc", "w"), ("abc", "xy"), ("abc", "xy")])
    );
    assert_table(decoder.table(), &[("abc", "xy")]);
}

#[test]
fn a_field_larger_than_the_table_empties_it_on_both_sides_of_the_name() {
    for name in [&[0x40, 1, b'n'][..], &[0x7e]] {
        let mut decoder = Decoder::new(4096);
        let mut block = vec![0x3f, 0x21, 0x40, 1, b'a', 1, b'b'];
        block.extend(name);
        block.push(64);
        block.extend([b'v'; 64]);
        assert_eq!(decoded(&mut decoder, &block).unwrap().len(), 2);
        assert_table(decoder.table(), &[]);
        let gone = Err(DecodeError::IndexUnknown { index: 62 });
        assert_eq!(decoded(&mut decoder, &[0xbe]), gone);
    }
}

#[test]
fn a_peer_one_entry_out_of_step_gets_an_error_and_not_a_wrong_index() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(
        decoded(&mut decoder, &bytes("4001 6101 62")).unwrap().len(),
        1
    );
    assert_eq!(decoded(&mut decoder, &[0xbe]), Ok(owned(&[("a", "b")])));
    for (block, index) in [
        (&[0x80][..], 0),
        (&[0xbf], 63),
        (&[0x7f, 0, 1, b'v'], 63),
        (&[0x0f, 0x30, 1, b'v'], 63),
        (&[0x1f, 0x30, 1, b'v'], 63),
        (&[0xff, 0x81, 0xff, 0xff, 0x7f], 0x0fff_ff80 + 0x80),
    ] {
        assert_eq!(
            decoded(&mut decoder, block),
            Err(DecodeError::IndexUnknown { index })
        );
    }
}

#[test]
fn size_updates_stand_at_the_beginning_of_a_block_at_most_two_within_what_we_said() {
    let mut decoder = Decoder::new(100);
    assert_eq!(
        decoded(&mut decoder, &[0x20, 0x3f, 0x45, 0x82]),
        Ok(owned(&[(":method", "GET")]))
    );
    let misplaced = Err(DecodeError::SizeUpdateMisplaced);
    assert_eq!(decoded(&mut decoder, &[0x20, 0x20, 0x20]), misplaced);
    assert_eq!(decoded(&mut decoder, &[0x82, 0x20]), misplaced);
    let large = Err(DecodeError::SizeUpdateTooLarge {
        size: 101,
        max: 100,
    });
    assert_eq!(decoded(&mut decoder, &[0x3f, 0x46]), large);
}

#[test]
fn a_block_that_ends_too_soon_is_an_error_wherever_it_ends() {
    let block = bytes("4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    assert!(decoded(&mut Decoder::new(4096), &block).is_ok());
    for end in 1..block.len() {
        let cut = decoded(&mut Decoder::new(4096), &block[..end]);
        assert_eq!(cut, Err(DecodeError::Truncated), "{end}");
    }
    assert_eq!(decoded(&mut Decoder::new(4096), &[]), Ok(vec![]));
}

#[test]
fn unsound_fields_say_so_also_as_an_index() {
    for (name, value, is_sound) in [
        ("x-a", "plain \t\u{e9}", true),
        ("x-a", "a\nb", false),
        ("X-a", "b", false),
        ("x a", "b", false),
        ("", "b", false),
        (":status", "200\r", false),
        (":protocol", "websocket", true),
        (":other", "b", false),
    ] {
        let mut block = vec![0x40, name.len() as u8];
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
        // By index; with its name and a sound value.
        block.extend([0xbe, 0x7e, 1, b'v', 0xbe]);
        let is_name_sound = is_sound || name == "x-a" || name == ":status";
        let mut found = Vec::new();
        let mut decoder = Decoder::new(4096);
        decoder
            .decode(&block, |field| found.push(field.is_sound))
            .unwrap();
        assert_eq!(
            found,
            [is_sound, is_sound, is_name_sound, is_name_sound],
            "{name:?} {value:?}"
        );
    }
}

#[test]
fn scratch_does_not_stay_large_and_an_unused_side_holds_nothing() {
    let mut decoder = Decoder::new(4096);
    let mut block = vec![0x00, 1, b'n', 0xff, 0xa1, 0x9b, 0x01];
    // 20000 bytes, the shortest codes (0x00000: five bits are `0`).
    block.resize(block.len() + 20000, 0);
    let fields = decoded(&mut decoder, &block).unwrap();
    assert_eq!(fields[0].1, vec![b'0'; 32000]);
    assert_eq!(decoder.held(), 0);
    assert_eq!(Encoder::new().held(), 0);
    decoded(&mut decoder, &bytes("4001 6101 62")).unwrap();
    assert!(decoder.held() > 0);
    decoded(&mut decoder, &[0x20]).unwrap();
    assert_eq!(decoder.held(), 0);
}

#[test]
fn what_is_seen_again_is_one_byte_and_names_are_found_in_any_case() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    let fields: Vec<Owned> = (0..20)
        .map(|n| (format!("x-{n}").into(), "v".into()))
        .collect();
    let block = encoded(&mut encoder, &fields);
    assert_eq!(decoded(&mut decoder, &block).as_ref(), Ok(&fields));
    assert_eq!(encoded(&mut encoder, &fields).len(), 20);

    let mut out = Vec::new();
    encoder.field(&mut out, 0, b"X-7", b"v", Indexing::Add);
    assert_eq!(out.len(), 1);
    encoder.field(&mut out, 0, b"X-New", b"1", Indexing::Add);
    encoder.field(&mut out, 0, b"x-nEW", b"2", Indexing::Leave);
    encoder.field(&mut out, 0, b"X-NEW", b"1", Indexing::Never);
    encoder.field(&mut out, statics::METHOD, b"", b"GET", Indexing::Never);
    let expected = [
        ("x-7", "v"),
        ("x-new", "1"),
        ("x-new", "2"),
        ("x-new", "1"),
        (":method", "GET"),
    ];
    assert_eq!(decoded(&mut decoder, &out), Ok(owned(&expected)));
    assert!(out.ends_with(b"\x0f\x2f\x012\x1f\x2f\x011\x12\x03GET"));
}

#[test]
fn a_field_larger_than_half_of_the_table_is_not_added() {
    let mut encoder = Encoder::new();
    let large = vec![(b"x-large".to_vec(), vec![b'v'; 2048 - 32 - 6])];
    let first = encoded(&mut encoder, &large);
    assert_eq!(first[0], 0x00);
    assert_eq!(encoded(&mut encoder, &large), first);
    assert_eq!(encoder.held(), 0);
    let fits = vec![(b"x-large".to_vec(), vec![b'v'; 2048 - 32 - 7])];
    assert_eq!(encoded(&mut encoder, &fits)[0], 0x40);
    assert_eq!(encoded(&mut encoder, &fits).len(), 1);
}

#[test]
fn changes_of_the_table_are_told_by_the_next_block_the_lowest_first() {
    let mut encoder = Encoder::new();
    let mut update = |maxima: &[usize]| {
        for &max in maxima {
            encoder.set_max_table(max);
        }
        encoded(&mut encoder, &[])
    };
    assert!(update(&[]).is_empty());
    assert!(update(&[4096, 65536]).is_empty());
    assert_eq!(update(&[0, 65536]), [0x20, 0x3f, 0xe1, 0x1f]);
    assert_eq!(update(&[100, 50, 70]), [0x3f, 0x13, 0x3f, 0x27]);
    assert!(update(&[70]).is_empty());
    assert_eq!(update(&[4096, 80]), [0x3f, 0x31]);
    assert_eq!(update(&[70]), [0x3f, 0x27]);
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-f]{1,2}".prop_map(String::into_bytes),
        (0..61usize).prop_map(|at| statics::FIELDS[at].name.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-3]{0,2}".prop_map(String::into_bytes),
        (0..61usize).prop_map(|at| statics::FIELDS[at].value.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..300),
        (1000..5000usize).prop_map(|len| vec![b'v'; len]),
    ]
}

/// A step of the encoder.
#[derive(Clone, Debug)]
enum Step {
    Begin,
    Field(Vec<u8>, Vec<u8>, Indexing),
    Resize(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let indexing = prop_oneof![6 => Just(Indexing::Add), 1 => Just(Indexing::Leave), 1 => Just(Indexing::Never)];
    prop_oneof![
        2 => Just(Step::Begin),
        20 => (any_name(), any_value(), indexing).prop_map(|(name, value, indexing)| {
            Step::Field(name, value, indexing)
        }),
        1 => prop_oneof![0..200usize, 0..6000usize].prop_map(Step::Resize),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_whatever_becomes_of_the_tables(
        steps in proptest::collection::vec(any_step(), 0..100),
    ) {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096);
        let mut block = Vec::new();
        let mut fields = Vec::new();
        encoder.begin(&mut block);
        for step in steps {
            match step {
                Step::Begin => {
                    prop_assert_eq!(decoded(&mut decoder, &block), Ok(std::mem::take(&mut fields)));
                    prop_assert_eq!(decoder.table().size(), encoder.table().size());
                    prop_assert_eq!(decoder.table().len(), encoder.table().len());
                    block.clear();
                    encoder.begin(&mut block);
                }
                Step::Field(name, value, indexing) => {
                    let lower = name.to_ascii_lowercase();
                    let id = statics::id_of(&lower);
                    encoder.field(&mut block, id, &name, &value, indexing);
                    fields.push((lower, value));
                }
                Step::Resize(max) => encoder.set_max_table(max),
            }
        }
        prop_assert_eq!(decoded(&mut decoder, &block), Ok(fields));
    }

    #[test]
    fn any_bytes_end_well_and_leave_little(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 1..8),
    ) {
        let mut decoder = Decoder::new(4096);
        for block in blocks {
            let mut count = 0;
            let _ = decoder.decode(&block, |_| count += 1);
            prop_assert!(count <= block.len());
            prop_assert!(decoder.table().size() <= 4096);
            // Bytes of the table, entries as they grow, scratch.
            prop_assert!(decoder.held() <= 2 * 4096 + 128 * 2 * 16 + 2 * (400 * 8 / 5 + 8));
        }
    }
}
