//! Endpoints that speak for themselves, over the line of an agent.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test: failing is their report"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use isobar::telemetry::history::Cause;

use crate::support::client::Client;
use crate::support::eventually::{eventually, stalled};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

/// An agent: says what it is told to say to whoever connects, and keeps what it is asked.
struct Agent {
    addr: SocketAddr,
    says: Arc<Mutex<&'static str>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    fn new(says: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (line, heard) = (says.clone(), asked.clone());
        // It ends with the process: nobody waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut question = String::new();
                let Ok(copy) = stream.try_clone() else {
                    continue;
                };
                // Whoever asked may be gone already.
                let _ = BufReader::new(copy).read_line(&mut question);
                let _ = stream.write_all(line.lock().unwrap().as_bytes());
                heard.lock().unwrap().push(question);
            }
        });
        Self { addr, says, asked }
    }

    fn say(&self, line: &'static str) {
        *self.says.lock().unwrap() = line;
    }

    /// Waits until it was asked some more times, from now on.
    fn await_questions(&self, n: usize) {
        let before = self.asked.lock().unwrap().len();
        eventually("more questions", || {
            self.asked.lock().unwrap().len() >= before + n
        });
    }
}

fn asking(agent: &Agent) -> String {
    let port = agent.addr.port();
    format!("agent = {{ port = {port}, send = \"app\\n\", interval = '20ms' }}")
}

/// What isobar has it that the one endpoint says.
fn says(proxy: &Proxy) -> Option<String> {
    let view = proxy.operations().upstream("app").unwrap();
    view.endpoints[0].observed.as_ref().unwrap().says.clone()
}

fn await_says(proxy: &Proxy, wanted: Option<&str>) {
    eventually(&format!("it says {wanted:?}"), || {
        says(proxy).as_deref() == wanted
    });
}

#[test]
fn what_an_agent_says_is_heard_kept_and_taken_back() {
    let (origin, agent) = (Origin::named("one"), Agent::new("up 75%\n"));
    let proxy = Proxy::over(&[origin.addr()], &asking(&agent));
    await_says(&proxy, Some("75%"));
    assert_eq!(agent.asked.lock().unwrap()[0], "app\n", "`send`");
    agent.say("drain maxconn:7 # patching\n");
    await_says(&proxy, Some("drain 75% maxconn:7"));
    // Half a line, none, and words that mean nothing change nothing.
    for line in ["down", "", "\n", "banana\n"] {
        agent.say(line);
        agent.await_questions(2);
        assert_eq!(says(&proxy).as_deref(), Some("drain 75% maxconn:7"));
    }
    agent.say("ready,100%,maxconn:0\r\n");
    await_says(&proxy, None);
    let events = proxy.operations().latest(1000).events;
    let told: Vec<&str> = events
        .iter()
        .filter(|e| e.cause == Cause::Agent)
        .map(|e| &*e.text)
        .collect();
    let of = format!(
        "endpoint {} of upstream `app` says of itself:",
        origin.addr()
    );
    assert_eq!(
        told,
        [
            format!("{of} ready -> 75%: its agent says `up 75%`"),
            format!("{of} 75% -> drain 75% maxconn:7: its agent says `drain maxconn:7 # patching`"),
            format!("{of} drain 75% maxconn:7 -> ready: its agent says `ready,100%,maxconn:0`"),
        ],
        "each change once"
    );
}

#[test]
fn agent_that_is_gone_changes_nothing() {
    let origin = Origin::named("one");
    let agent = Agent::new("50%\n");
    let toml = |more: &str| Proxy::config_over(&[origin.addr()], more);
    let proxy = Proxy::start(&toml(&asking(&agent)));
    await_says(&proxy, Some("50%"));
    // A port where nobody listens, bound so that nobody else does.
    let refusing = crate::support::unreachable::Refusing::new();
    let port = refusing.addr.port();
    proxy.reload(&toml(&format!(
        "agent = {{ port = {port}, interval = '20ms' }}"
    )));
    let failed = format!(
        "isobar_agent_checks_total{{upstream=\"app\",endpoint=\"{}\",result=\"connect\"}}",
        origin.addr()
    );
    eventually("questions that fail", || proxy.metric(&failed) >= 3.0);
    assert_eq!(says(&proxy).as_deref(), Some("50%"));
    assert_eq!(Client::get(proxy.addr(), "/").status(), 200);
    // Nobody listens to it any more: what it said is over, and nobody is asked.
    proxy.reload(&toml(""));
    assert_eq!(says(&proxy), None);
    let before = agent.asked.lock().unwrap().len();
    stalled("the last questions", || agent.asked.lock().unwrap().len());
    proxy.reload(&toml(&asking(&agent)));
    await_says(&proxy, Some("50%"));
    assert!(agent.asked.lock().unwrap().len() > before);
}

#[test]
fn the_stricter_word_decides_who_gets_requests() {
    let (origin, agent) = (Origin::named("one"), Agent::new("up\n"));
    let health = "health = { check = 'tcp', interval = '20ms', timeout = '20ms', fall = 1000 }";
    let proxy = Proxy::over(&[origin.addr()], &format!("{}\n{health}", asking(&agent)));
    let status = || Client::get(proxy.addr(), "/").status();
    for (line, wanted) in [
        ("ready\n", 200),
        ("down # why\n", 503),
        // Its checks say that it is up: it says otherwise of itself.
        ("up\n", 200),
        ("maint\n", 503),
        ("drain\n", 503),
        ("ready 0%\n", 503),
        // `ready`: that it was said with the 0% may have been missed.
        ("ready 100%\n", 200),
    ] {
        agent.say(line);
        eventually(line, || status() == wanted);
    }
}

#[test]
fn weight_is_a_share_of_the_configured_one() {
    let origins = [Origin::named("one"), Origin::named("two")];
    // Each endpoint has its own address, so that each has an agent at the same port.
    let agent = Agent::new("25%\n");
    let more = asking(&agent);
    let config = Proxy::config_over(&[origins[0].addr(), origins[1].addr()], &more);
    let proxy = Proxy::start(&config.replace("round_robin", "weighted"));
    let operations = proxy.operations();
    eventually("both say so", || {
        let view = operations.upstream("app").unwrap();
        let says = |e: &isobar::runtime::views::EndpointView| {
            let observed = e.observed.as_ref().unwrap();
            observed.says.as_deref() == Some("25%")
        };
        view.endpoints.iter().all(says)
    });
    // The same of both: as before.
    let mut answers: Vec<_> = (0..8)
        .map(|_| Client::get(proxy.addr(), "/").text())
        .collect();
    answers.sort();
    assert_eq!(
        answers,
        ["one", "one", "one", "one", "two", "two", "two", "two"]
    );
}
