//! A published server and client of gRPC: grpcio, in a Python of its own, without generated code.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::binary::Binary;
use super::h2::Identity;

/// A server whose service `t.S` has a method of every kind. Killed when dropped.
#[derive(Debug)]
pub struct GrpcServer {
    process: Binary,
    pub addr: SocketAddr,
}

const SERVER: &str = include_str!("grpc_server.py");
const CLIENT: &str = include_str!("grpc_client.py");

/// A Python with grpcio, installed by `tests/run`; or the machine's own, if it has that.
pub fn python() -> Option<PathBuf> {
    let has_grpc = |python: &PathBuf| {
        let tried = Command::new(python)
            .args(["-c", "import grpc_health.v1.health"])
            .stderr(std::process::Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let given = std::env::var_os("ISOBAR_GRPC_PYTHON").map(PathBuf::from);
    given
        .or_else(|| super::find("python3"))
        .filter(has_grpc)
        .or_else(|| super::need("python3 with grpcio-health-checking"))
}

/// Runs these cases of the client against `addr` to their end; each ends with success or says why not.
#[track_caller]
pub fn client(python: &Path, addr: SocketAddr, identity: Option<&Identity>, cases: &[&str]) {
    let root = identity.map_or_else(String::new, |i| i.cert().display().to_string());
    let addr = addr.to_string();
    let args = [&["-u", "-c", CLIENT, &addr, &root][..], cases].concat();
    let folder = tempfile::tempdir().unwrap();
    let mut process = Binary::spawn_at(python, &args, folder);
    let status = process.wait();
    assert!(status.success(), "{}", process.output());
}

// === impl GrpcServer ===

impl GrpcServer {
    #[track_caller]
    pub fn start(python: &Path, identity: Option<&Identity>) -> Self {
        let path =
            |path: Option<PathBuf>| path.map_or_else(String::new, |p| p.display().to_string());
        let cert = path(identity.map(Identity::cert));
        let key = path(identity.map(Identity::key));
        let args = ["-u", "-c", SERVER, &cert, &key];
        let process = Binary::spawn_at(python, &args, tempfile::tempdir().unwrap());
        let addr = process.await_addr("serves");
        Self { process, addr }
    }

    /// Waits until it has said so.
    #[track_caller]
    pub fn await_line(&self, needle: &str) {
        self.process.await_line(needle);
    }

    /// How often it has said so.
    pub fn count(&self, needle: &str) -> usize {
        let said = self.process.output();
        said.lines().filter(|line| line.contains(needle)).count()
    }
}
