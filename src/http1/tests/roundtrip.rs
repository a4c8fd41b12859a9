//! Property tests: what is written is read back, however it is cut.

use proptest::prelude::*;

use super::*;

fn field_name() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}".prop_filter("no framing", |name| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        ![
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "expect",
        ]
        .contains(&name.as_str())
    })
}

fn field_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20..=0x7eu8, 0x80..=0xffu8];
    prop::collection::vec(byte, 0..40).prop_map(|v| v.trim_ascii().to_vec())
}

fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

proptest! {
    #[test]
    fn fields_are_read_as_written(
        method in "[A-Z]{1,32}".prop_filter("its target is not a path", |m| m != "CONNECT"),
        path in "/[!-\"$-;=@-_a-~]{0,60}",
        query in prop::option::of("[!$-;=?-~]{0,60}"),
        fields in prop::collection::vec((field_name(), field_value()), 0..30),
        spaces in "[ \t]{0,3}",
    ) {
        let target = match &query {
            Some(query) => format!("{path}?{query}"),
            None => path.clone(),
        };
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in &fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(spaces.as_bytes());
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(spaces.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\nbody");
        let mut head = RequestHead::new();
        prop_assert_eq!(head.parse(&bytes, &LIMITS), Ok(Progress::Complete));
        prop_assert_eq!(head.head_len(), bytes.len() - 4);
        prop_assert_eq!(head.method.as_str(), method);
        prop_assert_eq!(head.path(&bytes), path);
        prop_assert_eq!(head.query(&bytes), query.as_deref());
        let read: Vec<_> = head.fields[1..]
            .iter()
            .map(|f| (f.name.text(&bytes).to_owned(), f.value.of(&bytes).to_vec()))
            .collect();
        prop_assert_eq!(read, fields);
    }

    #[test]
    fn chunks_are_read_as_written(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        extension in prop::option::of("[!-~][\t -~]{0,100}"),
        sizes in prop::collection::vec(0usize..64, 0..40),
    ) {
        let mut bytes = Vec::new();
        let extension = extension.map(|e| format!(";{e}")).unwrap_or_default();
        for chunk in &chunks {
            let line = SizeLine::new(chunk.len() as u64);
            bytes.extend_from_slice(line.as_bytes().trim_ascii_end());
            bytes.extend_from_slice(extension.as_bytes());
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nA: b\r\n\r\nGET");

        let mut decoder = ChunkDecoder::new(&LIMITS);
        let (mut buf, mut data) = (Vec::new(), Vec::new());
        for piece in cut(&bytes, &sizes) {
            buf.extend_from_slice(piece);
            loop {
                match decoder.decode(&buf) {
                    Ok(Chunk::NeedMore { skip }) => {
                        buf.drain(..skip);
                        break;
                    }
                    Ok(Chunk::Data { skip, len }) => {
                        data.extend_from_slice(&buf[skip..skip + len]);
                        buf.drain(..skip + len);
                    }
                    Ok(Chunk::End { skip }) => {
                        buf.drain(..skip);
                        break;
                    }
                    Err(refusal) => prop_assert!(false, "{refusal}"),
                }
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(buf, b"GET");
        prop_assert_eq!(decoder.trailers().len(), 1);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_request(&[&bytes], &LIMITS);
        let _ = read_response(&[&bytes], &LIMITS, &Method::GET);
        let _ = ChunkDecoder::new(&LIMITS).decode(&bytes);
    }
}
