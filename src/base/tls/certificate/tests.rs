use data_encoding::BASE64;
use rcgen::string::{BmpString, PrintableString};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, DnValue, KeyIdMethod, SerialNumber,
    date_time_ymd,
};

use super::*;
use crate::base::tls::fixture::Ca;
use crate::base::tls::identity;

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

/// The words about `files`, without the name of the file, which must be `of`.
fn refusal(files: &CertificateFiles, of: &Path) -> String {
    let error = read_pair(files).unwrap_err();
    assert_eq!(error.file(), of);
    let shown = error.to_string();
    shown
        .strip_prefix(&format!("{}: ", of.display()))
        .unwrap_or_else(|| panic!("{shown}"))
        .to_owned()
}

#[test]
fn facts_are_what_the_certificate_says() {
    let ca = Ca::new("a CA");
    let names = ["Example.COM", "*.example.com", "192.0.2.7", "2001:db8::7"];
    let mut params = CertificateParams::new(names.map(str::to_owned)).unwrap();
    params.distinguished_name.push(DnType::CommonName, "unused");
    params.not_before = date_time_ymd(1999, 12, 31);
    params.not_after = date_time_ymd(2100, 1, 1);
    for kind in [KeyKind::Ecdsa, KeyKind::Ed25519, KeyKind::Rsa] {
        let issued = ca.issue_with(&params, kind);
        let loaded = read_pair(&ca.files("a", &issued)).unwrap();
        let facts = CertificateFacts {
            names: ["example.com", "*.example.com", "192.0.2.7", "2001:db8::7"]
                .map(str::to_owned)
                .to_vec(),
            subject: "CN=unused".to_owned(),
            not_before: 946_598_400,
            not_after: 4_102_444_800,
            fingerprint: Sha256::digest(&issued.der).into(),
            kind,
            unlinked: None,
        };
        assert_eq!(loaded.facts, facts);
        assert_eq!(loaded.key.cert[0].as_ref(), issued.der);
        assert!(loaded.key.ocsp.is_none());
    }
}

#[test]
fn common_name_is_the_name_of_a_certificate_without_others() {
    let ca = Ca::new("a CA");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "Old.Example");
    let issued = ca.issue_with(&params, KeyKind::Ecdsa);
    let facts = read_pair(&ca.files("a", &issued)).unwrap().facts;
    assert_eq!((facts.name(), facts.names.len()), ("old.example", 1));
    // Nobody can ask for it, and no label may hold it.
    params
        .distinguished_name
        .push(DnType::CommonName, "a b\n\u{e9}");
    let issued = ca.issue_with(&params, KeyKind::Ecdsa);
    let facts = read_pair(&ca.files("a", &issued)).unwrap().facts;
    assert_eq!(facts.names, Vec::<String>::new());
    assert_eq!(facts.name(), "CN=a b\\0A\\C3\\A9");
}

#[test]
fn keys_are_read_in_each_of_their_forms() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let pkcs8 =
        rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let pkcs8 = pkcs8.secret_pkcs8_der();
    // ECPrivateKey: its version, and an OCTET STRING of 32 bytes (RFC 5915 section 3).
    let inner = [2, 1, 1, 4, 32];
    let at = pkcs8.windows(5).position(|w| w == inner).unwrap() - 2;
    let files = ca.files("ec", &issued);
    let parameters = pem(
        "EC PARAMETERS",
        &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
    );
    ca.write("ec.key", parameters + &pem("EC PRIVATE KEY", &pkcs8[at..]));
    read_pair(&files).unwrap();

    let issued = ca.issue(&["a.test"], KeyKind::Rsa);
    let pkcs8 =
        rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    // SEQUENCE, version, AlgorithmIdentifier and the head of the OCTET STRING: 26 bytes.
    let pkcs1 = &pkcs8.secret_pkcs8_der()[26..];
    let files = ca.files("rsa", &issued);
    ca.write("rsa.key", pem("RSA PRIVATE KEY", pkcs1));
    read_pair(&files).unwrap();

    // Both in one file, as HAProxy wants it.
    let both = ca.write("both.pem", issued.key + &issued.cert);
    let files = CertificateFiles {
        cert: both.clone(),
        key: both,
        ocsp: None,
    };
    read_pair(&files).unwrap();
}

#[test]
fn pair_that_does_not_belong_together_is_refused() {
    let ca = Ca::new("a CA");
    let one = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let other = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let files = ca.files("a", &one);
    ca.write("a.key", &other.key);
    let text = format!(
        "this key does not belong to the certificate in {}; give the key that the certificate was \
         asked for with, or the certificate of this key",
        files.cert.display()
    );
    assert_eq!(refusal(&files, &files.key), text);
    ca.write("a.pem", one.cert.clone() + &other.cert);
    let text = refusal(&files, &files.cert);
    assert!(text.contains("belongs to certificate 2 in it"), "{text}");
    ca.write("a.pem", other.cert + &one.cert);
    read_pair(&files).unwrap();
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_what_to_do() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let files = ca.files("a", &issued);
    let certs: [(&[u8], &str); 8] = [
        (
            b"",
            "there is no certificate in it; PEM files begin with a line `-----BEGIN …-----`",
        ),
        (
            issued.key.as_bytes(),
            "there is no certificate in it, but a private key; are two files swapped?",
        ),
        (
            b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "there is no certificate in it, but a request for a certificate; give what the CA made of it",
        ),
        (
            &issued.cert.as_bytes()[..issued.cert.len() - 40],
            "it is cut off: `-----END CERTIFICATE-----` is missing; was it copied whole?",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
            "its PEM is damaged: what is in it is not base64; copy it again",
        ),
        (
            b"-----BEGIN CERTIFICATE--\n",
            "its PEM is damaged: a line that begins a section is not whole; copy it again",
        ),
        (
            &issued.der,
            "it is in DER, and PEM is wanted: `openssl x509 -inform der -in FILE -out NEW` makes it so",
        ),
        (
            &[b'x'; MAX_BYTES as usize + 1],
            "it has more than 1048576 bytes; is it the right file?",
        ),
    ];
    for (content, wanted) in certs {
        ca.write("a.pem", content);
        assert_eq!(refusal(&files, &files.cert), wanted);
    }
    ca.write(
        "a.pem",
        pem("CERTIFICATE", &issued.der[..issued.der.len() - 1]),
    );
    let text = refusal(&files, &files.cert);
    assert!(
        text.starts_with("certificate 1 in it is not valid"),
        "{text}"
    );
    ca.write("a.pem", &issued.cert);

    let encrypted = "its key is encrypted, and nobody is there to type a passphrase: \
         `openssl pkey -in FILE -out NEW` decrypts it; let only the user that isobar runs as read the \
         result";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
         DEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let keys: [(&[u8], &str); 5] = [
        (
            issued.cert.as_bytes(),
            "there is no private key in it, but a certificate; are two files swapped?",
        ),
        (
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            encrypted,
        ),
        (old.as_bytes(), encrypted),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "its private key cannot be used; RSA of 2048 to 8192 bits, ECDSA over P-256, P-384 or P-521, \
             and Ed25519 can",
        ),
        (
            b"-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n",
            "there is no private key in it; PEM files begin with a line `-----BEGIN …-----`",
        ),
    ];
    for (content, wanted) in keys {
        ca.write("a.key", content);
        assert_eq!(refusal(&files, &files.key), wanted);
    }
    let folder = CertificateFiles {
        cert: ca.folder().to_owned(),
        ..files.clone()
    };
    assert_eq!(refusal(&folder, ca.folder()), "it is not a file");
    let gone = CertificateFiles {
        key: ca.folder().join("gone"),
        ..files
    };
    let text = refusal(&gone, &gone.key);
    assert!(
        text.starts_with("it cannot be read: No such file"),
        "{text}"
    );
}

#[test]
fn chain_out_of_order_is_a_warning() {
    let ca = Ca::new("a CA");
    let stranger = Ca::new("a stranger");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let files = ca.files("a", &issued);
    let facts = |chain: &[&str]| {
        ca.write("a.pem", chain.concat());
        read_pair(&files).unwrap().facts
    };
    let (root, other) = (ca.issuer.pem(), stranger.issuer.pem());
    let facts_of_good = facts(&[&issued.cert, &root]);
    assert_eq!(facts_of_good.unlinked, None);
    assert_eq!(
        facts_of_good.warnings(facts_of_good.not_after),
        Vec::<String>::new()
    );
    assert_eq!(facts(&[&issued.cert, &root, &other]).unlinked, Some(3));
    let bad = facts(&[&issued.cert, &other, &root]);
    assert_eq!(bad.unlinked, Some(2));
    let warning = "in the chain of the certificate for `a.test`, certificate 2 did not issue \
         certificate 1: some clients refuse it; put each one's issuer right after it";
    assert_eq!(bad.warnings(bad.not_before), [warning]);
}

#[test]
fn certificate_outside_of_its_time_is_a_warning() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let facts = read_pair(&ca.files("a", &issued)).unwrap().facts;
    let late = "the certificate for `a.test` has expired: clients refuse it; renew it";
    assert_eq!(facts.warnings(facts.not_after + 1), [late]);
    let early =
        "the certificate for `a.test` is not valid yet: clients refuse it; is the clock right?";
    assert_eq!(facts.warnings(facts.not_before - 1), [early]);
}

#[test]
fn ocsp_response_is_stapled_when_it_is_one_and_whole() {
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let mut files = ca.files("a", &issued);
    let path = ca.write("a.ocsp", b"");
    files.ocsp = Some(path.clone());
    let of = |body: &[u8]| {
        let mut response = match body.len() {
            n @ ..=0x7f => vec![0x30, n as u8],
            n @ ..=0xff => vec![0x30, 0x81, n as u8],
            n => vec![0x30, 0x82, (n >> 8) as u8, n as u8],
        };
        response.extend_from_slice(body);
        response
    };
    for len in [3, 0x7f, 0x80, 0xff, 0x100, 0x1234] {
        let mut body = vec![0; len];
        body[..2].copy_from_slice(&[0x0a, 1]);
        let response = of(&body);
        fs::write(&path, &response).unwrap();
        assert_eq!(
            read_pair(&files).unwrap().key.ocsp.as_ref(),
            Some(&response)
        );
        fs::write(&path, &response[..response.len() - 1]).unwrap();
        assert!(refusal(&files, &path).starts_with("it is not an OCSP response in DER"));
    }
    // tryLater
    fs::write(&path, of(&[0x0a, 1, 3])).unwrap();
    assert!(refusal(&files, &path).contains("has no answer"));
    for other in [
        &b""[..],
        b"-----BEGIN OCSP RESPONSE-----\n",
        &of(&[2, 1, 0]),
    ] {
        fs::write(&path, other).unwrap();
        assert!(refusal(&files, &path).starts_with("it is not an OCSP response in DER"));
    }
    fs::write(&path, vec![0x30; MAX_OCSP_BYTES as usize + 1]).unwrap();
    assert!(refusal(&files, &path).starts_with("it has more than 65536 bytes"));
}

#[test]
fn cas_and_revocation_lists_are_read() {
    let ca = Ca::new("a CA");
    let other = Ca::new("another CA");
    let cas = ca.write("cas.pem", ca.issuer.pem() + &other.issuer.pem());
    assert_eq!(read_cas(&cas).unwrap().len(), 2);
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let key = ca.write("a.key", &issued.key);
    let error = read_cas(&key).unwrap_err().wrong().to_string();
    let text = "there is no certificate in it, but a private key; are two files swapped?";
    assert_eq!(error, text);

    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let mut ca_params = CertificateParams::new(Vec::new()).unwrap();
    ca_params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate().unwrap();
    let crl = params
        .signed_by(&rcgen::Issuer::new(ca_params, key))
        .unwrap();
    let path = ca.write("crl.pem", crl.pem().unwrap());
    assert_eq!(read_crls(&path).unwrap(), [crl.der().clone()]);
    ca.write("crl.pem", crl.der());
    let error = read_crls(&path).unwrap_err().wrong().to_string();
    assert!(error.contains("`openssl crl -inform der"), "{error}");
    let error = read_crls(&cas).unwrap_err().wrong().to_string();
    let text = "there is no revocation list in it, but a certificate; are two files swapped?";
    assert_eq!(error, text);
}

fn subject(names: &[(DnType, DnValue)]) -> String {
    let ca = Ca::new("a CA");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in names {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    let issued = ca.issue_with(&params, KeyKind::Ecdsa);
    let known = identity(&[issued.der.into()]).unwrap();
    http::HeaderValue::from_str(&known.subject).unwrap();
    assert!(known.subject.bytes().all(|b| matches!(b, b' '..=b'~')));
    known.subject.into()
}

#[test]
fn subject_is_as_rfc_4514_writes_it_and_safe_whatever_it_holds() {
    let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
    let printable = DnValue::PrintableString(PrintableString::try_from("DE").unwrap());
    let bmp = DnValue::BmpString(BmpString::try_from("M\u{fc}nchen").unwrap());
    let all = subject(&[
        (DnType::CountryName, printable),
        (DnType::LocalityName, bmp),
        (
            DnType::OrganizationName,
            utf8("Example, \"Inc\" + Sons; <a\\b>"),
        ),
        (DnType::CommonName, utf8("alice")),
    ]);
    assert_eq!(
        all,
        "CN=alice,O=Example\\, \\\"Inc\\\" \\+ Sons\\; \\<a\\\\b\\>,L=M\\C3\\BCnchen,C=DE"
    );
    let cn = |text: &str| subject(&[(DnType::CommonName, utf8(text))]);
    assert_eq!(cn("a\r\nX-Admin: 1\0"), "CN=a\\0D\\0AX-Admin: 1\\00");
    assert_eq!(
        cn("\u{7f}\u{2028}\u{1f600}"),
        "CN=\\7F\\E2\\80\\A8\\F0\\9F\\98\\80"
    );
    assert_eq!(cn(" # both ends "), "CN=\\ # both ends\\ ");
    assert_eq!(cn("#1"), "CN=\\#1");
    assert_eq!(cn(" "), "CN=\\ ");
    assert_eq!(cn(""), "CN=");
    // An attribute that RFC 4514 has no word for: its value in DER.
    let custom = DnType::from_oid(&[1, 3, 6, 1, 4, 1, 99_999, 1]);
    assert_eq!(
        subject(&[(custom, utf8("hi\n"))]),
        "1.3.6.1.4.1.99999.1=#0C0368690A"
    );
}

#[test]
fn identity_is_of_the_first_certificate_and_never_unsafe() {
    assert_eq!(identity(&[]), None);
    let ca = Ca::new("a CA");
    let issued = ca.issue(&["a.test"], KeyKind::Ecdsa);
    let chain = [issued.der.clone().into(), ca.issuer.der().clone()];
    let known = identity(&chain).unwrap();
    assert_eq!(&*known.subject, "CN=a test");
    assert_eq!(
        &*known.certificate,
        format!(":{}:", BASE64.encode(&issued.der))
    );
    let fingerprint: String = Sha256::digest(&issued.der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(&*known.fingerprint, fingerprint);
    // Every byte of it changed once, every length cut: no panic, and always a header field's value.
    for i in 0..issued.der.len() {
        for change in [1, 0x20, 0xff] {
            let mut der = issued.der.clone();
            der[i] ^= change;
            let known = identity(&[der.into()]).unwrap();
            assert!(known.subject.bytes().all(|b| matches!(b, b' '..=b'~')));
        }
        let cut = identity(&[issued.der[..i].to_vec().into()]).unwrap();
        assert_eq!(&*cut.subject, "");
    }
}
