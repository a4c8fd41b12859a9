//! One test for each promise of the module docs.

use super::super::{Candidate, HostLevel, Lost, PathLevel, Shadow, Step, Verdict};
use super::*;

#[test]
fn empty_table_knows_no_host() {
    let table = table(&[]);
    assert!(table.is_empty());
    assert_eq!(find(&table, &Ask::get("a.com", "/")), Err(Miss::NoHost));
    assert_eq!(table.shadowed(), []);
}

#[test]
fn unknown_host_is_a_different_miss_from_unknown_path() {
    let table = table(&[rule(&["a.com", "*.b.com"], "/x")]);
    assert_eq!(find(&table, &Ask::get("a.com", "/y")), Err(Miss::NoRoute));
    assert_eq!(find(&table, &Ask::get("c.b.com", "/y")), Err(Miss::NoRoute));
    assert_eq!(find(&table, &Ask::get("b.com", "/x")), Err(Miss::NoHost));
    assert_eq!(find(&table, &Ask::get("", "/x")), Err(Miss::NoHost));
}

#[test]
fn a_rule_without_host_covers_every_host() {
    let table = table(&[rule(&[], "/x")]);
    for host in ["a.com", "", ".", &"x".repeat(5_000)] {
        assert_eq!(find(&table, &Ask::get(host, "/x")), Ok(0));
        assert_eq!(find(&table, &Ask::get(host, "/y")), Err(Miss::NoRoute));
    }
}

#[test]
fn hosts_go_before_paths_and_file_order() {
    let table = table(&[
        rule(&[], "/v1/x"),
        rule(&["*.com"], "/v1/x"),
        rule(&["*.a.com"], "/v1/*"),
        rule(&["b.a.com"], ""),
    ]);
    assert_eq!(find(&table, &Ask::get("b.a.com", "/v1/x")), Ok(3));
    assert_eq!(find(&table, &Ask::get("c.a.com", "/v1/x")), Ok(2));
    assert_eq!(find(&table, &Ask::get("a.com", "/v1/x")), Ok(1));
    assert_eq!(find(&table, &Ask::get("org", "/v1/x")), Ok(0));
}

#[test]
fn paths_rank_exact_regex_longer_prefix_none() {
    let table = table(&[
        rule(&[], ""),
        rule(&[], "/*"),
        rule(&[], "/v1/*"),
        rule(&[], "/v1/users/*"),
        rule(&[], "~^/v1/users/[0-9]+$"),
        rule(&[], "/v1/users/7"),
    ]);
    assert_eq!(find(&table, &Ask::get("h", "/v1/users/7")), Ok(5));
    assert_eq!(find(&table, &Ask::get("h", "/v1/users/8")), Ok(4));
    assert_eq!(find(&table, &Ask::get("h", "/v1/users/x")), Ok(3));
    assert_eq!(find(&table, &Ask::get("h", "/v1/user")), Ok(2));
    assert_eq!(find(&table, &Ask::get("h", "/v2")), Ok(1));
}

#[test]
fn length_of_strings_decides_nothing() {
    let long = format!("~^/{}", "a?".repeat(40));
    let table = table(&[
        rule(&[], "~a"),
        rule(&[], &long),
        rule(&["a.co"], "/b"),
        rule(&["*.long-name.example"], "/b"),
    ]);
    assert_eq!(find(&table, &Ask::get("h", "/a")), Ok(0));
    assert_eq!(find(&table, &Ask::get("a.co", "/b")), Ok(2));
}

#[test]
fn prefixes_match_whole_segments_and_give_the_rest() {
    let table = table(&[
        rule(&[], "/v1/*"),
        rule(&["all"], "/*"),
        rule(&["x"], "/v1"),
    ]);
    let rest = |host: &str, path: &str| {
        let ask = Ask::get(host, path);
        table
            .find(&ask.request())
            .map(|found| found.rest.to_owned())
    };
    assert_eq!(rest("h", "/v1").unwrap(), "");
    assert_eq!(rest("h", "/v1/").unwrap(), "/");
    assert_eq!(rest("h", "/v1/a").unwrap(), "/a");
    assert_eq!(rest("h", "/v1//a").unwrap(), "//a");
    assert_eq!(rest("h", "/v1x").unwrap_err(), Miss::NoRoute);
    assert_eq!(rest("h", "/V1").unwrap_err(), Miss::NoRoute);
    assert_eq!(rest("h", "/v").unwrap_err(), Miss::NoRoute);
    assert_eq!(rest("all", "/é").unwrap(), "/é");
    assert_eq!(rest("all", "*").unwrap(), "*");
    assert_eq!(rest("all", "").unwrap(), "");
    assert_eq!(rest("x", "/v1").unwrap(), "");
    // The exact host's rules leave it, the hostless prefix takes it.
    assert_eq!(rest("x", "/v1/b").unwrap(), "/b");
}

#[test]
fn regexes_of_one_host_are_tried_in_file_order_whatever_they_start_with() {
    let table = table(&[
        rule(&[], "~^/u/[0-9]+$"),
        rule(&[], "~[0-9]"),
        rule(&[], "~^/u/"),
        rule(&[], "~^/"),
        rule(&[], "~(?i)^/u"),
    ]);
    assert_eq!(find(&table, &Ask::get("h", "/u/7")), Ok(0));
    assert_eq!(find(&table, &Ask::get("h", "/u/7x")), Ok(1));
    assert_eq!(find(&table, &Ask::get("h", "/u/x")), Ok(2));
    assert_eq!(find(&table, &Ask::get("h", "/U/x")), Ok(3));
    assert_eq!(find(&table, &Ask::get("h", "U")), Err(Miss::NoRoute));
}

#[test]
fn the_walk_falls_back_to_less_specific_rules() {
    let post = |host: &[&str], at: &str| Rule {
        methods: methods(&["POST"]),
        ..rule(host, at)
    };
    let table = table(&[
        post(&["a.com"], "/x"),
        post(&["a.com"], "/*"),
        rule(&["*.com"], "/x"),
        rule(&[], "/x/y"),
    ]);
    assert_eq!(find(&table, &Ask::get("a.com", "/x").method("POST")), Ok(0));
    assert_eq!(
        find(&table, &Ask::get("a.com", "/x/y").method("POST")),
        Ok(1)
    );
    assert_eq!(find(&table, &Ask::get("a.com", "/x")), Ok(2));
    assert_eq!(find(&table, &Ask::get("a.com", "/x/y")), Ok(3));
    assert_eq!(find(&table, &Ask::get("a.com", "/x/z")), Err(Miss::NoRoute));
}

#[test]
fn a_shorter_prefix_takes_what_the_longer_one_refuses() {
    let table = table(&[
        rule(&[], "/a/*"),
        Rule {
            methods: methods(&["PUT"]),
            ..rule(&[], "/a/b/*")
        },
        rule(&[], "/a/bc"),
    ]);
    assert_eq!(find(&table, &Ask::get("h", "/a/b/c").method("PUT")), Ok(1));
    assert_eq!(find(&table, &Ask::get("h", "/a/b/c")), Ok(0));
    // `/a/b` lies above `/a/bc` in the tree but is no prefix by segments.
    assert_eq!(find(&table, &Ask::get("h", "/a/bcd").method("PUT")), Ok(0));
}

#[test]
fn predicates_rank_method_headers_query_client_file() {
    let base = || rule(&[], "/x");
    let header = |n: usize| {
        ["x-a", "x-b", "x-c"][..n]
            .iter()
            .map(|name| (HeaderName::from_static(name), value("")))
            .collect::<Vec<_>>()
    };
    let query = |n: usize| {
        ["a", "b", "c"][..n]
            .iter()
            .map(|n| ((*n).to_owned(), value("")))
            .collect::<Vec<_>>()
    };
    // Each rule beats all before it.
    let ladder = [
        base(),
        Rule {
            clients: vec!["0.0.0.0/0".parse().unwrap()],
            ..base()
        },
        Rule {
            clients: vec!["10.0.0.0/8".parse().unwrap()],
            ..base()
        },
        Rule {
            query: query(1),
            ..base()
        },
        Rule {
            query: query(2),
            ..base()
        },
        Rule {
            headers: header(1),
            ..base()
        },
        Rule {
            headers: header(1),
            query: query(3),
            ..base()
        },
        Rule {
            headers: header(2),
            ..base()
        },
        Rule {
            methods: methods(&["GET"]),
            ..base()
        },
        Rule {
            methods: methods(&["GET", "PUT"]),
            headers: header(1),
            ..base()
        },
    ];
    let ask = Ask::get("h", "/x").client("10.1.1.1").query("a&b&c");
    let ask = ask.header("x-a", "1").header("x-b", "1").header("x-c", "1");
    for n in 1..=ladder.len() {
        assert_eq!(find(&table(&ladder[..n]), &ask), Ok(n - 1));
    }
    let twice = [base(), base()];
    assert_eq!(find(&table(&twice), &ask), Ok(0));
}

#[test]
fn the_longest_network_that_holds_the_client_decides() {
    let clients = |list: &[&str]| Rule {
        clients: list.iter().map(|net| net.parse().unwrap()).collect(),
        ..rule(&[], "")
    };
    let table = table(&[
        clients(&["10.0.0.0/8", "fd00::/8"]),
        clients(&["10.1.0.0/16", "0.0.0.0/0", "192.168.0.0/16"]),
        clients(&["::1/128"]),
    ]);
    let at = |client: &str| find(&table, &Ask::get("h", "/").client(client));
    assert_eq!(at("10.2.0.1"), Ok(0));
    assert_eq!(at("10.1.0.1"), Ok(1));
    assert_eq!(at("8.8.8.8"), Ok(1));
    assert_eq!(at("::ffff:10.1.0.1"), Ok(1));
    assert_eq!(at("fd12::1"), Ok(0));
    assert_eq!(at("::1"), Ok(2));
    assert_eq!(at("::2"), Err(Miss::NoRoute));
    assert_eq!(find(&table, &Ask::get("h", "/")), Err(Miss::NoRoute));
}

#[test]
fn headers_match_any_value_of_the_field() {
    let with = |pattern: &str| Rule {
        headers: vec![(HeaderName::from_static("x-t"), value(pattern))],
        ..rule(&[], "")
    };
    let ask = Ask::get("h", "/").header("x-t", "a").header("x-t", "b");
    for pattern in ["a", "b", "", "~^b$"] {
        assert_eq!(find(&table(&[with(pattern)]), &ask), Ok(0), "{pattern}");
    }
    for pattern in ["c", "A", "a, b", "~^ab"] {
        assert_eq!(
            find(&table(&[with(pattern)]), &ask),
            Err(Miss::NoRoute),
            "{pattern}"
        );
    }
    assert_eq!(
        find(&table(&[with("")]), &Ask::get("h", "/")),
        Err(Miss::NoRoute)
    );
    let binary = Ask::get("h", "/").header("x-t", "\u{e9}");
    assert_eq!(find(&table(&[with("\u{e9}")]), &binary), Ok(0));
}

#[test]
fn methods_are_case_sensitive_and_get_is_not_head() {
    let table = table(&[Rule {
        methods: methods(&["GET", "PURGE"]),
        ..rule(&[], "")
    }]);
    let at = |method: &str| find(&table, &Ask::get("h", "/").method(method));
    assert_eq!(at("GET"), Ok(0));
    assert_eq!(at("PURGE"), Ok(0));
    assert_eq!(at("get"), Err(Miss::NoRoute));
    assert_eq!(at("HEAD"), Err(Miss::NoRoute));
}

#[test]
fn listeners_see_only_their_rules() {
    let on = |listeners: &[&str], host: &[&str], at: &str| Rule {
        listeners: listeners.iter().map(|&name| Arc::from(name)).collect(),
        ..rule(host, at)
    };
    let table = table(&[
        on(&["web"], &["a.com"], "/x"),
        on(&["tls", "admin"], &["a.com"], "/x"),
        on(&["admin"], &[], ""),
        on(&[], &["b.com"], "/x"),
        on(&["gone"], &["c.com"], ""),
    ]);
    let at =
        |listener, host: &str, path: &str| find(&table, &Ask::get(host, path).listener(listener));
    assert_eq!(at(0, "a.com", "/x"), Ok(0));
    assert_eq!(at(1, "a.com", "/x"), Ok(1));
    assert_eq!(at(2, "a.com", "/x"), Ok(1));
    assert_eq!(at(2, "a.com", "/y"), Ok(2));
    assert_eq!(at(1, "a.com", "/y"), Err(Miss::NoRoute));
    assert_eq!(at(1, "z.com", "/y"), Err(Miss::NoHost));
    assert_eq!(at(2, "z.com", "/y"), Ok(2));
    assert_eq!((at(0, "b.com", "/x"), at(2, "b.com", "/x")), (Ok(3), Ok(3)));
    assert_eq!(at(0, "c.com", "/"), Err(Miss::NoHost));
    // A listener the table never heard of has the unrestricted rules.
    assert_eq!(at(99, "a.com", "/x"), Err(Miss::NoHost));
    assert_eq!(at(99, "b.com", "/x"), Ok(3));
}

#[test]
fn explanation_tells_every_candidate_in_order() {
    let table = table(&[
        rule(&[], "/*"),
        Rule {
            methods: methods(&["PUT"]),
            ..rule(&["a.com"], "/x/*")
        },
        rule(&["a.com", "*.com"], "/x/*"),
        rule(&["a.com"], "~^/x/[0-9]$"),
        Rule {
            listeners: vec![Arc::from("tls")],
            ..rule(&["a.com"], "/x/y")
        },
        rule(&["a.com"], "/other"),
        rule(&["*.com"], "/x/y"),
        Rule {
            clients: vec![
                "10.0.0.0/8".parse().unwrap(),
                "10.1.0.0/16".parse().unwrap(),
            ],
            ..rule(&["a.com"], "")
        },
    ]);
    let explanation = table.explain(&Ask::get("a.com", "/x/y").client("10.2.1.1").request());
    let told = |rule, host, path, verdict| Candidate {
        rule,
        host,
        path,
        verdict,
    };
    let com = HostLevel::Wildcard { labels: 1 };
    let prefix = |segments| PathLevel::Prefix { segments };
    assert_eq!(
        explanation.candidates,
        [
            told(
                4,
                HostLevel::Exact,
                PathLevel::Exact,
                Verdict::Lost(Lost::Listener)
            ),
            told(
                3,
                HostLevel::Exact,
                PathLevel::Regex,
                Verdict::Lost(Lost::Regex)
            ),
            told(1, HostLevel::Exact, prefix(1), Verdict::Lost(Lost::Method)),
            told(2, HostLevel::Exact, prefix(1), Verdict::Chosen),
            told(
                7,
                HostLevel::Exact,
                PathLevel::Any,
                Verdict::Outranked(Step::Path)
            ),
            told(6, com, PathLevel::Exact, Verdict::Outranked(Step::Host)),
            told(0, HostLevel::Any, prefix(0), Verdict::Outranked(Step::Host)),
        ]
    );
    assert_eq!(explanation.outcome, Ok(2));
    let sentence = explanation.candidates[5].verdict.to_string();
    assert_eq!(sentence, "matches, but the chosen host is more specific");
}

#[test]
fn explanation_names_the_matcher_that_failed() {
    let table = table(&[Rule {
        headers: vec![
            (HeaderName::from_static("x-a"), value("")),
            (HeaderName::from_static("x-b"), value("1")),
        ],
        query: vec![("q".into(), value("1"))],
        clients: vec![
            "10.0.0.0/8".parse().unwrap(),
            "10.1.0.0/16".parse().unwrap(),
        ],
        ..rule(&[], "")
    }]);
    let lost = |ask: &Ask| {
        let explanation = table.explain(&ask.request());
        assert_eq!(explanation.candidates.len(), 1);
        explanation.candidates[0].verdict
    };
    let ask = Ask::get("h", "/");
    assert_eq!(lost(&ask), Verdict::Lost(Lost::Header(0)));
    let ask = ask.header("x-a", "1");
    assert_eq!(lost(&ask), Verdict::Lost(Lost::Header(1)));
    let ask = ask.header("x-b", "1");
    assert_eq!(lost(&ask), Verdict::Lost(Lost::Query(0)));
    let ask = ask.query("q=1");
    assert_eq!(lost(&ask), Verdict::Lost(Lost::Client));
    assert_eq!(lost(&ask.clone().client("10.2.0.1")), Verdict::Chosen);
    assert_eq!(lost(&ask.client("10.1.0.1")), Verdict::Chosen);
}

#[test]
fn shadows_are_told_with_the_rule_that_wins() {
    let shadow = |rules: &[Rule]| table(rules).shadowed();
    let by = |rule, by| vec![Shadow { rule, by }];
    let base = || rule(&["a.com", "b.com"], "/x/*");
    let header = |pattern: &str| vec![(HeaderName::from_static("x-t"), value(pattern))];
    let clients = |list: &[&str]| {
        list.iter()
            .map(|net| net.parse().unwrap())
            .collect::<Vec<_>>()
    };

    // Duplicates, also with folded hosts and a subset of them.
    assert_eq!(shadow(&[base(), base()]), by(1, 0));
    assert_eq!(shadow(&[base(), rule(&["B.COM."], "/x/*")]), by(1, 0));
    assert_eq!(shadow(&[rule(&["b.com"], "/x/*"), base()]), []);
    assert_eq!(shadow(&[rule(&[], "~^/a"), rule(&[], "~^/a")]), by(1, 0));
    // More specific paths and hosts are no shadows; a catch-all above no path is.
    assert_eq!(
        shadow(&[rule(&[], "/x"), rule(&[], "/x/*"), rule(&["a.com"], "/x")]),
        []
    );
    assert_eq!(shadow(&[rule(&[], ""), rule(&[], "/*")]), by(0, 1));
    // A rule that asks more wins by that, one that asks otherwise too.
    let post = Rule {
        methods: methods(&["POST"]),
        ..base()
    };
    let both = Rule {
        methods: methods(&["GET", "POST"]),
        ..base()
    };
    assert_eq!(shadow(&[base(), post.clone()]), []);
    assert_eq!(shadow(&[post.clone(), both.clone()]), []);
    assert_eq!(shadow(&[both, post]), by(1, 0));
    // Equally many matchers, each following from the earlier rule's.
    let (present, one) = (
        Rule {
            headers: header(""),
            ..base()
        },
        Rule {
            headers: header("1"),
            ..base()
        },
    );
    let digit = Rule {
        headers: header("~^[0-9]$"),
        ..base()
    };
    assert_eq!(shadow(&[present.clone(), one.clone()]), by(1, 0));
    assert_eq!(shadow(&[digit, one.clone()]), by(1, 0));
    assert_eq!(shadow(&[one, present]), []);
    // The longer network wins, so only equal ones shadow.
    let wide = Rule {
        clients: clients(&["10.0.0.0/8", "11.0.0.0/8"]),
        ..base()
    };
    let narrow = Rule {
        clients: clients(&["10.1.0.0/16"]),
        ..base()
    };
    let part = Rule {
        clients: clients(&["10.5.5.5/8"]),
        ..base()
    };
    assert_eq!(shadow(&[wide.clone(), narrow]), []);
    assert_eq!(shadow(&[wide, part]), by(1, 0));
    // Listeners.
    let tls = Rule {
        listeners: vec![Arc::from("tls")],
        ..base()
    };
    assert_eq!(shadow(&[base(), tls.clone()]), by(1, 0));
    assert_eq!(shadow(&[tls, base()]), []);
}
