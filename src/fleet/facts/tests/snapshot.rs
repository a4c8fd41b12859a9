//! The file of facts: whole or set aside, never lost, never of another fleet or of long ago.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::fleet::facts::snapshot::{
    FILE, Image, LoadError, Loaded, SaveError, SetAside, VERSION, Why, load, save,
};

const ME: PeerId = PeerId(7);

fn sample() -> Facts {
    store(&[
        registered("app", 1, 1, NOW),
        vote("pool", 2, 1, NOW),
        drain(1, NOW, 1),
        gone(&drain(2, NOW, 1), NOW),
    ])
}

fn saved() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let image = Image::new(ME, "edge", NOW, &sample());
    save(folder.path(), &image).unwrap();
    (folder, image.bytes().to_vec())
}

fn set_aside(folder: &Path) -> SetAside {
    match load(folder, "edge", NOW).unwrap() {
        Loaded::SetAside(aside) => aside,
        other => panic!("{other:?}"),
    }
}

/// A file whose head is right for this version and content.
fn sealed(version: u32, content: &[u8]) -> Vec<u8> {
    let (version, len) = (version.to_le_bytes(), (content.len() as u64).to_le_bytes());
    let sum = crc32fast::hash(&[&version[..], &len, content].concat());
    [
        &b"isobar\0F"[..],
        &version[..],
        &sum.to_le_bytes(),
        &len,
        content,
    ]
    .concat()
}

#[test]
fn next_process_knows_what_this_one_saved() {
    let (folder, bytes) = saved();
    assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), bytes);
    let mode = fs::metadata(folder.path().join(FILE))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let Loaded::Known(snapshot) = load(folder.path(), "edge", NOW + DAY).unwrap() else {
        panic!()
    };
    assert_eq!((snapshot.peer, &*snapshot.fleet), (ME, "edge"));
    assert_eq!(snapshot.saved_unix_ms, NOW);
    assert_eq!(snapshot.facts, list(&sample()));
    // A clock that went back does not make it old.
    assert!(matches!(
        load(folder.path(), "edge", 0),
        Ok(Loaded::Known(_))
    ));
}

#[test]
fn no_file_and_no_folder_are_a_new_peer() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        assert!(matches!(load(&path, "edge", NOW), Ok(Loaded::Fresh)));
    }
    let missing = folder.path().join("missing");
    let image = Image::new(ME, "edge", NOW, &sample());
    assert!(matches!(
        save(&missing, &image),
        Err(SaveError::Write { .. })
    ));
}

#[test]
fn after_a_day_the_peer_is_the_same_and_what_it_knew_is_past() {
    let (folder, bytes) = saved();
    let Loaded::Past(snapshot) = load(folder.path(), "edge", NOW + DAY + 1).unwrap() else {
        panic!()
    };
    assert_eq!((snapshot.peer, snapshot.facts), (ME, list(&sample())));
    assert_eq!(
        fs::read(folder.path().join(FILE)).unwrap(),
        bytes,
        "it stays"
    );
}

#[test]
fn file_of_another_fleet_is_set_aside() {
    let (folder, bytes) = saved();
    let Loaded::SetAside(aside) = load(folder.path(), "other", NOW).unwrap() else {
        panic!()
    };
    assert_eq!(aside.why, Why::Fleet("edge".to_owned()));
    assert_eq!(fs::read(&aside.kept).unwrap(), bytes);
    assert!(aside.to_string().contains("fleet.facts.bad"), "{aside}");
    assert!(matches!(
        load(folder.path(), "other", NOW),
        Ok(Loaded::Fresh)
    ));
}

#[test]
fn file_damaged_at_any_byte_is_set_aside() {
    let (folder, bytes) = saved();
    let path = folder.path().join(FILE);
    for at in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            fs::write(&path, &damaged).unwrap();
            let aside = set_aside(folder.path());
            assert!(matches!(aside.why, Why::Damaged(_)), "byte {at}: {aside}");
            assert_eq!(fs::read(&aside.kept).unwrap(), damaged);
            fs::remove_file(&aside.kept).unwrap();
        }
    }
}

#[test]
fn file_cut_or_longer_is_set_aside() {
    let (folder, bytes) = saved();
    let path = folder.path().join(FILE);
    let longer = [&bytes[..], b"x"].concat();
    let cut = (0..bytes.len()).map(|end| &bytes[..end]);
    for text in cut.chain([&longer[..]]) {
        fs::write(&path, text).unwrap();
        let aside = set_aside(folder.path());
        assert!(matches!(aside.why, Why::Damaged(_)), "{aside}");
        fs::remove_file(&aside.kept).unwrap();
    }
}

#[test]
fn file_of_a_newer_program_stays_and_stops_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let bytes = sealed(VERSION + 1, b"another shape altogether");
    fs::write(&path, &bytes).unwrap();
    let error = load(folder.path(), "edge", NOW).unwrap_err();
    assert!(
        matches!(error, LoadError::Newer { version: 3, .. }),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
    for content in [&b"\xff"[..], b""] {
        fs::write(&path, sealed(VERSION, content)).unwrap();
        assert!(matches!(set_aside(folder.path()).why, Why::Damaged(_)));
    }
    fs::write(&path, sealed(0, b"")).unwrap();
    assert!(matches!(set_aside(folder.path()).why, Why::Damaged(_)));
}

#[test]
fn file_of_an_older_program_is_set_aside_and_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let bytes = sealed(1, b"as it was written then");
    fs::write(&path, &bytes).unwrap();
    let aside = set_aside(folder.path());
    assert_eq!(aside.why, Why::Older(1));
    assert_eq!(fs::read(&aside.kept).unwrap(), bytes);
    let text = aside.to_string();
    assert!(text.contains("have format version 1"), "{text}");
    assert!(text.contains("reads version 2; the file is kept"), "{text}");
}

/// The format is a promise to the next version: other bytes take a new `VERSION`.
#[test]
fn format_is_version_2() {
    let fact = Fact {
        value: Value::Gone,
        ..vote("a", 1, 2, 3)
    };
    let mut facts = Facts::default();
    facts.merge(fact, 3);
    let about = Fact {
        key: Key::Peer(PeerId(9)),
        value: Value::Peer(About {
            zone: Some("z".into()),
            version: "1".to_owned(),
            config: 2,
            started_unix_ms: 3,
            knows_since_unix_ms: 4,
        }),
        stamp: Stamp::at(3),
        origin: PeerId(9),
    };
    facts.merge(about, 3);
    let image = Image::new(ME, "edge", 5, &facts);
    // Peer, name, time, two facts. One of a peer: kind, who, kind, zone, version, configuration, two times, stamp,
    // origin. One of a vote: kind, upstream, address of IPv4 with port, prober, value, stamp, origin.
    let content =
        b"\x07\x04edge\x05\x02\x00\x09\x01\x01\x01z\x011\x02\x03\x04\x80\x80\x0c\x09\x03\x01a\x00\x00\x0a\x00\x00\x01\x50\x02\x00\x80\x80\x0c\x02";
    assert_eq!(image.bytes(), sealed(2, content));
}
