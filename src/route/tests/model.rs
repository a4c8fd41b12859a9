//! The table against a naive reference, over small alphabets so that rules collide.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

// --- The reference: the module docs read aloud, one rule at a time ---

/// Host, path, method, headers, query, client; greater wins.
type Score = ((u8, usize), (u8, usize), bool, usize, usize, Option<u8>);

fn reference(rules: &[Rule], ask: &Ask) -> Result<usize, Miss> {
    let names = listeners();
    let here =
        |rule: &Rule| rule.listeners.is_empty() || rule.listeners.contains(&names[ask.listener]);
    let known = rules
        .iter()
        .any(|rule| here(rule) && host_score(rule, &ask.host).is_some());
    rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| here(rule))
        .filter_map(|(index, rule)| Some((score(rule, ask)?, Reverse(index))))
        .max()
        .map(|(_, Reverse(index))| index)
        .ok_or(if known { Miss::NoRoute } else { Miss::NoHost })
}

fn score(rule: &Rule, ask: &Ask) -> Option<Score> {
    let host = host_score(rule, &ask.host)?;
    let path = path_score(rule, &ask.path)?;
    if !rule.methods.is_empty() && !rule.methods.iter().any(|m| m.as_str() == ask.method) {
        return None;
    }
    for (name, pattern) in &rule.headers {
        let values = ask.headers.0.get_all(name);
        if !values
            .iter()
            .any(|v| value_matches(pattern, v.to_str().unwrap()))
        {
            return None;
        }
    }
    for (name, pattern) in &rule.query {
        let query = ask.query.clone().unwrap_or_default();
        let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
        if !pairs.any(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            unescape(key) == *name && value_matches(pattern, &unescape(value))
        }) {
            return None;
        }
    }
    let network = rule
        .clients
        .iter()
        .filter(|net| ask.client.is_some_and(|client| net.contains(&client)))
        .map(IpNet::prefix_len)
        .max();
    if !rule.clients.is_empty() && network.is_none() {
        return None;
    }
    let counts = (rule.headers.len(), rule.query.len());
    Some((
        host,
        path,
        !rule.methods.is_empty(),
        counts.0,
        counts.1,
        network,
    ))
}

fn host_score(rule: &Rule, host: &str) -> Option<(u8, usize)> {
    let fold = |name: &str| name.strip_suffix('.').unwrap_or(name).to_lowercase();
    let host = fold(host);
    if rule.hosts.is_empty() {
        return Some((0, 0));
    }
    let one = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(name) => (fold(name) == host).then_some((2, 0)),
        HostPattern::Wildcard(suffix) => {
            let suffix = fold(suffix);
            let front = host.strip_suffix(&suffix)?.strip_suffix('.')?;
            (!front.is_empty()).then(|| (1, suffix.split('.').count()))
        }
    };
    rule.hosts.iter().filter_map(one).max()
}

fn path_score(rule: &Rule, path: &str) -> Option<(u8, usize)> {
    match &rule.path {
        Some(PathPattern::Exact(exact)) => (exact == path).then_some((3, 0)),
        Some(PathPattern::Regex(regex)) => regex.is_match(path).then_some((2, 0)),
        Some(PathPattern::Prefix(prefix)) => {
            let below = path.strip_prefix(prefix.as_str())?;
            let whole = prefix.is_empty() || below.is_empty() || below.starts_with('/');
            whole.then(|| (1, prefix.split('/').count()))
        }
        None => Some((0, 0)),
    }
}

fn value_matches(pattern: &ValuePattern, value: &str) -> bool {
    match pattern {
        ValuePattern::Exact(exact) => exact == value,
        ValuePattern::Present => true,
        ValuePattern::Regex(regex) => regex.is_match(value),
    }
}

/// Enough for the escapes below.
fn unescape(text: &str) -> String {
    text.replace('+', " ")
        .replace("%31", "1")
        .replace("%20", " ")
}

// --- Rules and requests ---

fn any_rule() -> impl Strategy<Value = Rule> {
    let host = [
        "a.com",
        "A.com.",
        "b.a.com",
        "*.com",
        "*.a.com",
        "*.b.a.com",
        "c.b.a.com",
        "com",
        "[::1]",
    ];
    let paths = [
        "",
        "/*",
        "/",
        "/a",
        "/a/",
        "/a/*",
        "/a/b",
        "/a/b/*",
        "/ab",
        "/ab/*",
        "/a//*",
        "/a/b/c/*",
        "~^/a",
        "~^/a/",
        "~b",
        "~^/a/[bc]$",
        "~(?i)^/A/b",
        "~^/ab?/?",
        "~c$",
    ];
    let values = || select(&["1", "", "~^[0-9]$", "~1", "2", "a b"][..]).prop_map(value);
    let headers = (
        select(&["x-a", "x-b"][..]).prop_map(HeaderName::from_static),
        values(),
    );
    let query = (select(&["q", "r s"][..]).prop_map(str::to_owned), values());
    let nets: Vec<IpNet> = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3/32",
        "0.0.0.0/0",
        "fd00::/8",
    ]
    .map(|net| net.parse().unwrap())
    .to_vec();
    (
        few(listeners(), 2),
        few(host.to_vec(), 3).prop_map(|list| hosts(&list)),
        select(paths.to_vec()).prop_map(path),
        few(vec!["GET", "POST", "PUT"], 2).prop_map(|list| methods(&list)),
        prop_oneof![3 => Just(vec![]), 2 => vec(headers, 1..3)],
        prop_oneof![3 => Just(vec![]), 2 => vec(query, 1..3)],
        few(nets, 3),
    )
        .prop_map(
            |(listeners, hosts, path, methods, headers, query, clients)| Rule {
                listeners,
                hosts,
                path,
                methods,
                headers,
                query,
                clients,
            },
        )
}

/// Mostly nothing, else one to `most` of them.
fn few<T: Clone + std::fmt::Debug + 'static>(
    from: Vec<T>,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![3 => Just(vec![]), 2 => subsequence(from, 1..=most)]
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let host = [
        "a.com",
        "A.COM",
        "a.com.",
        "b.a.com",
        "c.b.a.com",
        "d.c.b.a.com",
        "x.com",
        "com",
        ".com",
        "[::1]",
        "",
        "org",
    ];
    let paths = [
        "/", "/a", "/a/", "/a//", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/ab", "/ab/c", "/abc",
        "/A/b", "*", "", "/x/c",
    ];
    let queries = [
        "q=1",
        "q",
        "q=%31&q=2",
        "r+s=1",
        "r%20s=a+b&q=1",
        "x=1&&q=x",
        "",
    ];
    let clients: Vec<IpAddr> = [
        "10.1.2.3", "10.1.0.1", "10.9.9.9", "8.8.8.8", "fd00::1", "::1",
    ]
    .map(|ip| ip.parse().unwrap())
    .to_vec();
    (
        0..3usize,
        select(host.to_vec()),
        select(paths.to_vec()),
        proptest::option::weighted(0.7, select(queries.to_vec())),
        select(vec!["GET", "POST", "PUT", "HEAD"]),
        proptest::option::weighted(0.8, select(clients)),
        vec(
            (select(vec!["x-a", "x-b"]), select(vec!["1", "2", "x"])),
            0..4,
        ),
    )
        .prop_map(|(listener, host, path, query, method, client, headers)| {
            let ask = Ask {
                client,
                ..Ask::get(host, path).method(method).listener(listener)
            };
            let ask = Ask {
                query: query.map(str::to_owned),
                ..ask
            };
            headers
                .into_iter()
                .fold(ask, |ask, (name, value)| ask.header(name, value))
        })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    vec(any_rule(), 0..24)
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    vec(any_ask(), 1..24)
}

// --- The properties. A failure prints its smallest input; its seed goes to proptest-regressions/ ---

proptest! {
    /// `find` here also compares with `explain`.
    #[test]
    fn find_and_explain_agree_with_the_reference(rules in rules(), asks in asks()) {
        let table = table(&rules);
        for ask in &asks {
            prop_assert_eq!(find(&table, ask), reference(&rules, ask), "{:?}", ask);
        }
    }

    #[test]
    fn explanation_names_each_rule_once_a_host_and_one_winner(rules in rules(), ask in any_ask()) {
        use super::super::Verdict;
        let explanation = table(&rules).explain(&ask.request());
        let chosen: Vec<usize> = explanation
            .candidates
            .iter()
            .filter(|told| told.verdict == Verdict::Chosen)
            .map(|told| told.rule)
            .collect();
        prop_assert_eq!(chosen, explanation.outcome.into_iter().collect::<Vec<_>>());
        for (n, told) in explanation.candidates.iter().enumerate() {
            let again = &explanation.candidates[n + 1..];
            prop_assert!(!again.iter().any(|c| (c.rule, c.host) == (told.rule, told.host)));
            let matches = score(&rules[told.rule], &ask).is_some();
            let listed = rules[told.rule].listeners.is_empty()
                || rules[told.rule].listeners.contains(&listeners()[ask.listener]);
            prop_assert_eq!(matches && listed, !matches!(told.verdict, Verdict::Lost(_)));
        }
    }

    #[test]
    fn an_unrelated_host_changes_nothing(
        rules in rules(), other in any_rule(), asks in asks(), at in any::<prop::sample::Index>()
    ) {
        let before = table(&rules);
        let at = at.index(rules.len() + 1);
        let mut more = rules;
        more.insert(at, Rule { hosts: hosts(&["*.unrelated.test", "a.com.test"]), ..other });
        let after = table(&more);
        for ask in &asks {
            let moved = find(&before, ask).map(|index| index + usize::from(index >= at));
            prop_assert_eq!(find(&after, ask), moved, "{:?}", ask);
        }
    }

    #[test]
    fn a_shadowed_rule_never_wins(rules in vec(tight_rule(), 0..24), asks in vec(any_ask(), 100)) {
        let table = table(&rules);
        let shadowed = table.shadowed();
        for ask in &asks {
            for shadow in &shadowed {
                prop_assert_ne!(find(&table, ask), Ok(shadow.rule), "{:?} {:?}", shadow, ask);
            }
        }
    }

    /// Looking only where a winner can be finds the same as looking everywhere.
    #[test]
    fn the_index_of_shadows_loses_none(rules in vec(tight_rule(), 0..40)) {
        let table = table(&rules);
        prop_assert_eq!(table.shadowed(), table.shadowed_by_search());
    }

    #[test]
    fn a_planted_duplicate_is_found(rules in rules(), at in any::<prop::sample::Index>()) {
        prop_assume!(!rules.is_empty());
        let at = at.index(rules.len());
        let mut more = rules;
        more.push(more[at].clone());
        let last = more.len() - 1;
        let found = table(&more).shadowed().into_iter().find(|shadow| shadow.rule == last);
        prop_assert!(found.is_some_and(|shadow| shadow.by <= at));
    }
}

/// Rules that differ in one place or two, so that most sets contain shadows.
fn tight_rule() -> impl Strategy<Value = Rule> {
    (any_rule(), 0..64u8).prop_map(|(rule, keep)| {
        let kept = |bit: u8| keep >> bit & 1 == 1;
        Rule {
            listeners: if kept(0) { rule.listeners } else { vec![] },
            hosts: if kept(1) { rule.hosts } else { vec![] },
            path: rule.path.filter(|_| kept(2) && kept(5)),
            methods: if kept(3) { rule.methods } else { vec![] },
            headers: if kept(4) { rule.headers } else { vec![] },
            query: if kept(3) && kept(4) {
                rule.query
            } else {
                vec![]
            },
            clients: if kept(5) { rule.clients } else { vec![] },
        }
    })
}
