//! What a fleet says to the checker.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::base::addr::EndpointAddr;
use crate::config::Name;

use super::super::duty::Duty;

/// Where it says so.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) duty: watch::Receiver<Arc<Duty>>,
    pub(super) at_once: mpsc::Receiver<(Name, EndpointAddr)>,
}

/// What a fleet has said.
pub(super) enum Told {
    AskAtOnce(Name, EndpointAddr),
    Duty(Arc<Duty>),
    NoMore,
}

/// Waits for what a fleet says; for ever where there is none. Cancel-safe, as its parts are.
pub(super) async fn told(fleet: &mut Option<Orders>) -> Told {
    let Some(Orders { duty, at_once }) = fleet else {
        return std::future::pending().await;
    };
    tokio::select! {
        changed = duty.changed() => match changed {
            Ok(()) => Told::Duty(duty.borrow_and_update().clone()),
            Err(_) => Told::NoMore,
        },
        asked = at_once.recv() => match asked {
            Some((upstream, endpoint)) => Told::AskAtOnce(upstream, endpoint),
            None => Told::NoMore,
        },
    }
}
