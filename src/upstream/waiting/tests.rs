use std::sync::atomic::AtomicU32;
use std::task::Wake;

use super::*;

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

const MS: Nanos = 1_000_000;

fn poll(waiter: &Waiter) -> Poll<Called> {
    waiter.poll_called(&Context::from_waker(Waker::noop()))
}

fn is_in(waiter: &Waiter) -> bool {
    poll(waiter) == Poll::Ready(Called::In)
}

#[test]
fn first_come_first_called() {
    let line = Arc::new(Waiting::default());
    let waiters: Vec<_> = (0..3).map(|_| line.join(10, 0).unwrap()).collect();
    assert_eq!(line.len(), 3);
    line.call(MS);
    assert_eq!(
        waiters.iter().map(is_in).collect::<Vec<_>>(),
        [true, false, false]
    );
    // Who was called counts until it has gone in: nobody goes in before it.
    assert_eq!(line.len(), 3);
    let mut waiters = waiters.into_iter();
    waiters.next().unwrap().enter(|| false, MS);
    assert_eq!(line.len(), 2);
    line.call(MS);
    assert!(is_in(&waiters.next().unwrap()));
}

#[test]
fn after_a_tenth_of_a_second_the_latest_is_called_and_the_oldest_turned_away() {
    let line = Arc::new(Waiting::default());
    let old = line.join(2, 0).unwrap();
    let young = line.join(2, 99 * MS).unwrap();
    assert!(
        line.join(2, 100 * MS).is_none(),
        "a burst: the line is full"
    );
    let latest = line.join(2, 101 * MS).unwrap();
    assert_eq!(poll(&old), Poll::Ready(Called::Away));
    assert_eq!(line.len(), 2);
    drop(old);
    assert_eq!(line.len(), 2, "its count went to who came");
    line.call(102 * MS);
    assert!(is_in(&latest));
    assert!(poll(&young).is_pending());
    latest.enter(|| true, 102 * MS);
    assert!(is_in(&young), "there was more room");
    young.enter(|| false, 102 * MS);
    assert!(line.is_empty());
    // An empty line begins anew.
    let one = line.join(2, 200 * MS).unwrap();
    let two = line.join(2, 250 * MS).unwrap();
    line.call(290 * MS);
    assert!(is_in(&one) && poll(&two).is_pending());
}

#[test]
fn a_call_to_one_who_leaves_is_passed_on() {
    let line = Arc::new(Waiting::default());
    let (one, two) = (line.join(9, 0).unwrap(), line.join(9, 0).unwrap());
    line.call(0);
    drop(one);
    assert!(is_in(&two));
    drop(two);
    assert!(line.is_empty());
    // One who leaves uncalled takes nothing along.
    let (one, two) = (line.join(9, 0).unwrap(), line.join(9, 0).unwrap());
    drop(one);
    assert!(poll(&two).is_pending());
    assert_eq!(line.len(), 1);
}

#[test]
fn one_who_found_no_room_is_the_next_to_be_called() {
    let line = Arc::new(Waiting::default());
    let (one, two) = (line.join(9, 0).unwrap(), line.join(9, 0).unwrap());
    line.call(0);
    one.again(0);
    assert!(poll(&one).is_pending());
    assert_eq!(line.len(), 2);
    line.call(0);
    assert!(is_in(&one) && poll(&two).is_pending());
}

#[test]
fn a_call_wakes_the_one_who_waits() {
    let line = Arc::new(Waiting::default());
    let count = Arc::new(Count::default());
    let waiter = line.join(1, 0).unwrap();
    let waker = Waker::from(count.clone());
    assert!(
        waiter
            .poll_called(&Context::from_waker(&waker))
            .is_pending()
    );
    line.call(0);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

/// Slots taken and given back by many threads at once, through the line: nobody is left waiting
/// for ever, the limit holds at every moment, and all is at rest at the end.
#[test]
fn no_call_is_ever_lost() {
    const THREADS: usize = 4;
    const EACH: usize = 3000;
    const LIMIT: u32 = 2;
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let line = Arc::new(Waiting::default());
    let load = Arc::new(AtomicU32::new(0));
    let enter = |load: &AtomicU32| {
        load.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
            (n < LIMIT).then_some(n + 1)
        })
        .is_ok()
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                let cx = Context::from_waker(&waker);
                for _ in 0..EACH {
                    if line.is_busy() || !enter(&load) {
                        let waiter = line.join(usize::MAX, 0).unwrap();
                        let (mut may_pick, mut is_called) = (waiter.is_alone(), false);
                        loop {
                            if may_pick && enter(&load) {
                                break;
                            }
                            match waiter.poll_called(&cx) {
                                Poll::Pending => {
                                    may_pick = false;
                                    std::thread::park();
                                }
                                Poll::Ready(Called::In) if is_called => {
                                    waiter.again(0);
                                    is_called = false;
                                    may_pick = waiter.is_alone();
                                }
                                Poll::Ready(Called::In) => (is_called, may_pick) = (true, true),
                                Poll::Ready(Called::Away) => panic!("the line has no end"),
                            }
                        }
                        waiter.enter(|| load.load(Ordering::SeqCst) < LIMIT, 0);
                    }
                    assert!(load.load(Ordering::SeqCst) <= LIMIT);
                    std::thread::yield_now();
                    load.fetch_sub(1, Ordering::SeqCst);
                    if line.is_busy() {
                        line.call(0);
                    }
                }
            });
        }
    });
    assert!(line.is_empty());
    assert_eq!(load.load(Ordering::SeqCst), 0);
}
