//! Lanes: so many calls at once, each for so long, on threads where they may block.

use std::time::Duration;

use http::StatusCode;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::problem::Problem;

/// A type of its own, because the compiler forgets the lifetime of a bare box in a future.
struct Work<T>(Box<dyn FnOnce() -> T + Send>);

/// A lane; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Lane<T> {
    layers: BoxCloneSyncService<Work<T>, T, BoxError>,
}

// === impl Lane ===

impl<T: Send + 'static> Lane<T> {
    /// `at_once` calls at once; more are refused.
    pub(super) fn new(at_once: usize, lasts: Duration) -> Self {
        let layers = ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(at_once)
            .timeout(lasts)
            .service_fn(|work: Work<T>| tokio::task::spawn_blocking(work.0));
        Self {
            layers: BoxCloneSyncService::new(layers),
        }
    }

    /// Does `work` in this lane. Cancel safe in so far as work that has begun is finished, unseen.
    pub(super) async fn run(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let done = self.layers.clone().oneshot(Work(Box::new(work))).await;
        done.map_err(|error| {
            if error.is::<Overloaded>() {
                let detail = "too many such requests at once; try again";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
            } else if error.is::<Elapsed>() {
                let detail = "it takes too long, and may still be done: `/v1/status` tells";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail)
            } else {
                // A panic: the process and its traffic go on, and the log has its place.
                let detail = "this is a bug; the program's standard error has more";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", detail)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn more_at_once_than_allowed_are_refused_and_room_is_made_again() {
        run(async {
            let lane = Lane::new(2, PATIENCE);
            let mut held = tokio::task::JoinSet::new();
            let (began, mut beginning) = tokio::sync::mpsc::channel(2);
            let mut releases = Vec::new();
            for _ in 0..2 {
                let (release, released) = mpsc::channel::<()>();
                releases.push(release);
                let (lane, began) = (lane.clone(), began.clone());
                held.spawn(async move {
                    let work = move || {
                        began.blocking_send(()).unwrap();
                        released.recv().unwrap();
                    };
                    lane.run(work).await.unwrap();
                });
            }
            for _ in 0..2 {
                beginning.recv().await.unwrap();
            }
            let problem = lane.run(|| ()).await.unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.code()),
                (503, "overloaded")
            );
            for release in releases {
                release.send(()).unwrap();
            }
            while let Some(ended) = held.join_next().await {
                ended.unwrap();
            }
            lane.run(|| ()).await.unwrap();
        });
    }

    #[test]
    fn what_takes_too_long_is_said_to_go_on() {
        run(async {
            let lane = Lane::new(1, Duration::from_millis(10));
            let (release, released) = mpsc::channel::<()>();
            let problem = lane
                .run(move || released.recv().unwrap())
                .await
                .unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.code()),
                (503, "timeout")
            );
            // It was waiting, not dropped.
            release.send(()).unwrap();
        });
    }
}
