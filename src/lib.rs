//! isobar: a layer-4/7 load-balancing reverse proxy. One process, one TOML file, thread per core,
//! no lost requests.
//!
//! This page is the map of the code. Each folder opens with its own.
//!
//! # Where to start
//! - One request from its first byte to its log line: `proxy/http.rs`, the numbered story; one connection
//!   that is passed on as it is: `proxy/tcp.rs`; one datagram: `proxy/udp`.
//! - Where an algorithm is: `balance/<policy>.rs`, paper cited, all of them through
//!   `balance/conformance.rs`.
//! - What a user can write: `config/isobar.toml` in the repository; what it becomes:
//!   [`config::Config`].
//! - Embedding: [`server::Server`], and `examples/`.
//! - Why something was refused: [`telemetry::reason::Reason`], the one list of reasons.
//!
//! # The floors
//! A module imports only from a lower floor (tests excepted).
//!
//! | floor | folder | what is there |
//! |---|---|---|
//! | F0 | [`base`] | addresses, buffers, clocks, deadlines (timer wheel), decimal text, files that are written whole, coroutines, streams, sockets and a reactor for those that only carry bytes, hash, rng, the load of an endpoint, the PROXY protocol, the words of systemd, TLS |
//! | F1 | [`telemetry`] | reasons, and kinds of abuse; cells that workers write and a scrape sums; the access log and its writer thread; the history of changes |
//! | F1 | [`http1`] | the codec, pure: heads as spans, framing decided in one file, chunks, trailers |
//! | F1 | [`http2`] | frames, HPACK, a connection as a machine without sockets; its streams as channels that carry heads as text |
//! | F2 | [`balance`] | policies, pure |
//! | F2 | [`guard`] | windows, budgets, breakers, passive detection, rate limits, learnt limits, percentiles, shares of tiers: pure |
//! | F2 | [`route`] | the route table, pure: find, explain, shadowed |
//! | F3 | [`config`] | text -> checked model, every problem at once; what differs between two; noticing that files changed |
//! | F3 | [`listener`] | binding, accepting, handing over between workers and between processes |
//! | F4 | [`upstream`] | endpoints, their published generations, what operators and they themselves say of them, who waits for one, pools, tickets, connects |
//! | F4 | [`health`] | active checks of endpoints: thresholds, schedule, probes; what endpoints say of themselves; it sees `upstream` |
//! | F4 | [`fleet`] | peers that act as one: who is there, what they say, who checks whom; it sees `upstream` and `health` |
//! | F5 | [`proxy`] | the data path, and the compiled snapshot that it reads |
//! | F6 | [`runtime`] | worker threads, the control thread, Config -> Snapshot, changing what runs, what operators can ask |
//! | F7 | [`admin`] | `/metrics`, `/livez`, `/readyz`, and the API on the Unix socket, on hyper and tower |
//! | F8 | [`server`] | what an embedding program starts |
//! | F9 | [`cli`] | the `isobar` command: `run` with signals and upgrades, and the client of the API |
//!
//! # Who runs where
//! One thread a worker (`isobar-N`), each a tokio current-thread runtime whose tasks never move:
//! one task a client connection, the endpoint's connection borrowed into it. One control thread
//! (`isobar-control`) for everything that is not traffic, one writer thread (`isobar-access`) for
//! the access log. Between workers there are three shared things only: in-flight counts
//! ([`base::load::Load`]), the schedule cursor of a balancer, and the published configuration; and,
//! where a file asks for them, what counts must be exact for: limits, the line in front of a full
//! upstream ([`upstream::Waiting`]), windows of failures, a breaker.
//!
//! # How a running server changes
//! `runtime::live` is the one writer. A reload prepares all that can fail (log file, addresses),
//! builds a snapshot that takes over every object that is the same, publishes it with one store, and
//! lets what was removed drain (`runtime::leaving`). A connection belongs to its listener
//! (`proxy::worker::Life`), a request to the snapshot that it began under, a socket to its address
//! (`runtime::sockets`). Operators, signals and the file watch come in through
//! [`runtime::operate::Operations`]; what checks find (`health::checker`, on the control thread)
//! through `Live::judge`, what endpoints say of themselves (`health::agent`) through `Live::hear`, what
//! requests find (`upstream::Signal`, from workers) through `Live::heed`. An upgrade is a second
//! process on the same sockets: [`listener::handover`] says how the two speak, `cli::upgrade` does it.
//! What peers of a fleet say comes in through `Live::heed_fleet`: `runtime::fleet` gives [`fleet::peer`], a
//! machine without sockets, its datagrams and the time, on the control thread.
//!
//! # Invariants
//! - Nothing is forwarded unparsed; heads are always written anew; what leaves doubt is refused.
//! - A connection that waits holds no buffer: an idle client costs its task and its socket.
//! - A request in flight lives in an *exchanger*, a future that is boxed once and used again
//!   ([`base::coroutine`]): the steady state allocates nothing.
//! - Every wait has a deadline on the worker's wheel, and every wait notices a cut.
//! - A request that may not be repeated reaches an endpoint at most once (but for gRPC statuses that its
//!   route names). Another attempt is paid for by the upstream's budget (`proxy/retry.rs`); only a
//!   connection that died in the pool is replaced for nothing.
//! - Who is ready is decided in one place, `upstream::members`: operators, the endpoint's own word,
//!   checks, ejections, tiers, in this order. Of checks there are two sources, and either is enough to be down
//!   ([`upstream::Endpoint::health`]): what the votes of a fleet came to, and what this process's own checks find.
//! - Every exchange ends in `Exchange::record`, exactly once: one set of metrics, one log line.
//! - Every change is whole: prepared before it is seen, and then seen by one store.
//! - No `unsafe`, no global state: two servers run in one process.
//!
//! # Words for states that are easily confused
//! | word | what it means |
//! |---|---|
//! | *down*, *down here* | found so by those whose word it is (the votes of a fleet, or this process's checks where none rule); found so by this process's own checks, which is enough for it alone ([`upstream::Endpoint`]) |
//! | *taken*, *awaited*, *found* | a new endpoint is what `init_state` takes it for; is down until a check has found it up; has been found up ([`upstream::Proof`]) |
//! | *held* | said at one peer, and without effect here: more than one peer may bring about (`fleet::standing::brake`). An addition that is held is awaited |
//! | *aside* | said by operators before this peer was away for longer than the fleet remembers: it has effect here, and nobody is told ([`fleet::peer::Past`]) |
//! | *set aside* | a file that cannot be used, kept under another name |
//! | *learning* | a peer that has not compared yet with one that was there before it: nothing of weights and additions is held |
//!
//! # Where the code departs from the first plan, and why
//! - Heads are spans over the connection's buffer, not `http::HeaderMap`: a map costs two
//!   allocations and a hash of every name for each message, and loses the case of names. The types
//!   of the `http` crate stay where they cost nothing (methods, statuses, configured fields).
//! - HTTP/2 has no story of its own. A stream of it, on either side, is a channel
//!   ([`base::stream::Channel`]) whose heads are HTTP/1.1 text, parsed by the one strict codec: retries,
//!   hedges, the queue and tunnels exist once, and nothing gets into a connection of HTTP/1 that could
//!   not have come in as HTTP/1. Bodies are not framed again: their ends and trailers are told beside
//!   the bytes. The machine is our own, where the first plan had the `h2` crate: that took as many
//!   instructions for a call of gRPC, relaying alone, as all of HAProxy does. HPACK writes fields straight
//!   into the text. (Health checks of gRPC use the crate: it is no data path.)
//! - TLS is in `base/tls`, because listeners, upstreams and checks share it; its streams use rustls'
//!   unbuffered API, so that a worker lends the buffers and an idle connection has none.
//! - What a connection begins with is looked at in the kernel (`MSG_PEEK`), where the first plan read it
//!   into a buffer that everybody behind would have to know of: one more system call for connections whose
//!   listener tells them apart, and none of the others knows of it. Only a header of the PROXY protocol is
//!   taken.
//! - Connections that are only passed on live in a reactor of the worker's own, an epoll inside that of tokio
//!   (`base/reactor.rs`): in tokio's a wake-up costs more than all that isobar does with a message, and leaving it
//!   a system call a socket. They are still tasks of the one runtime.
//! - Layer 4 has no routes: a listener names its upstream, and TLS that is passed through is told apart by
//!   the listener (`proxy/greet.rs`). One connection has no head to match.
//! - The fleet compares stores by sums of 4,096 buckets, not by version vectors: a vector is right only while no peer
//!   ever loses what it said, and what was restored from an older file did. Streams are sealed with the keyring that
//!   seals datagrams: one secret, no certificates.
//! - A peer's word takes away what its share allows, by origin (`fleet::standing`), where the first plan braked
//!   each round of comparing: pushes and comparisons come from everybody, and a word has one origin.
//! - The compiled `Snapshot` lives in `proxy`, not in `runtime`: the data path reads it, and a
//!   module knows only the floors below it. `runtime` builds it.
//! - The config model is below `proxy`, because plans hold parts of it as they were checked.
//! - A balancer is built anew when readiness changes, not only when members do: schedules over the
//!   ready members keep exact shares; the tables of hash policies are handed on.
//! - Round robin and weighted take turns through one cursor shared by the workers, so that users
//!   see exact turns; it is the one shared write beside the in-flight count.

pub mod admin;
pub mod balance;
pub mod base;
pub mod cli;
pub mod config;
pub mod fleet;
pub mod guard;
pub mod health;
pub mod http1;
pub mod http2;
pub mod listener;
pub mod proxy;
pub mod route;
pub mod runtime;
pub mod server;
pub mod telemetry;
pub mod upstream;
