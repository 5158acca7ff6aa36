// SPDX-License-Identifier: Apache-2.0

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::backend::pipe::ServerState;
use crate::format::{Format, Rate};

fn params() -> Params {
    Params {
        format: Format::S16,
        rate: Rate::from_hertz(48_000).unwrap(),
        channels: 2,
        buffer_bytes: 7680,
        period_bytes: 1920,
        features: 0,
    }
}

/// A server that can go away and that remembers what it heard.
#[derive(Clone, Default)]
struct Server {
    gone: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn check(&self) -> Result<(), BackendError> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(BackendError::Device {
                device: "test".into(),
                reason: "gone".into(),
            });
        }
        Ok(())
    }
}

impl Output for Server {
    fn open(&mut self, _: &Params, _: Opening) -> Result<(), BackendError> {
        self.check()
    }
    fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        self.check()?;
        // Less than is offered, but whole frames.
        let take = bytes.len().min(400);
        self.heard.lock().unwrap().extend_from_slice(&bytes[..take]);
        Ok(take)
    }
    fn delay(&mut self) -> u64 {
        96
    }
    fn close(&mut self) {}
}

impl Input for Server {
    fn open(&mut self, _: &Params, _: Opening) -> Result<(), BackendError> {
        self.check()
    }
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackendError> {
        self.check()?;
        bytes.fill(7);
        Ok(bytes.len())
    }
    fn is_live(&self) -> bool {
        false
    }
    fn close(&mut self) {}
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn output(server: &Server) -> OutputRunner {
    OutputRunner::spawn(
        "test",
        Box::new(server.clone()),
        Pacing::Clock,
        Arc::new(|_| {}),
    )
    .unwrap()
}

#[test]
fn what_is_pushed_before_the_close_is_heard_whole_and_in_order() {
    let server = Server::default();
    let mut runner = output(&server);
    runner.open(&params(), Opening::Prepared);
    runner.start();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    for piece in bytes.chunks(1920) {
        runner.push(piece, &params());
    }
    runner.close();
    wait_until("all is heard", || {
        server.heard.lock().unwrap().len() == bytes.len()
    });
    assert_eq!(*server.heard.lock().unwrap(), bytes);
    assert_eq!(runner.report().discarded(), 0);
}

#[test]
fn a_lost_server_costs_what_is_played_meanwhile_and_is_found_again() {
    let server = Server::default();
    server.gone.store(true, Ordering::SeqCst);
    let mut runner = output(&server);
    runner.open(&params(), Opening::Prepared);
    runner.start();
    wait_until("lost", || runner.report().state() == ServerState::Lost);
    runner.push(&[1; 1920], &params());
    wait_until("discarded", || runner.report().discarded() == 480);
    server.gone.store(false, Ordering::SeqCst);
    wait_until("back", || {
        if runner.delay(monotonic(), &params()) == 0 {
            runner.push(&[2; 1920], &params());
        }
        runner.report().state() == ServerState::Live
    });
    wait_until("heard", || runner.delay(monotonic(), &params()) <= 96);
    let heard = server.heard.lock().unwrap();
    assert!(!heard.is_empty() && heard.iter().all(|byte| *byte == 2));
}

#[test]
fn a_place_that_opens_and_takes_nothing_is_not_back() {
    /// Counts how often it was opened, and refuses every byte.
    #[derive(Clone, Default)]
    struct Refuses(Arc<AtomicUsize>);
    impl Output for Refuses {
        fn open(&mut self, _: &Params, _: Opening) -> Result<(), BackendError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        fn write(&mut self, _: &[u8]) -> Result<usize, BackendError> {
            Err(BackendError::Device {
                device: "test".into(),
                reason: "full".into(),
            })
        }
        fn close(&mut self) {}
    }
    let place = Refuses::default();
    let output = Box::new(place.clone());
    let mut runner = OutputRunner::spawn("test", output, Pacing::Clock, Arc::new(|_| {})).unwrap();
    runner.open(&params(), Opening::Prepared);
    runner.start();
    wait_until("lost", || {
        runner.push(&[1; 1920], &params());
        runner.report().state() == ServerState::Lost
    });
    let mut seen = Vec::new();
    wait_until("tried again", || {
        runner.push(&[1; 1920], &params());
        seen.push(runner.report().state());
        place.0.load(Ordering::SeqCst) >= 4
    });
    assert!(seen.iter().all(|state| *state == ServerState::Lost));
}

#[test]
fn a_source_that_waits_is_read_ahead_and_no_further() {
    let server = Server::default();
    let mut runner =
        InputRunner::spawn("test", Box::new(server), Pacing::Clock, Arc::new(|_| {})).unwrap();
    runner.open(&params(), Opening::Prepared);
    wait_until("read ahead", || runner.available() >= 96_000);
    let mut bytes = vec![0; 1921];
    assert_eq!(
        runner.pull(&mut bytes, &params()),
        1920,
        "whole frames only"
    );
    assert!(bytes[..1920].iter().all(|byte| *byte == 7));
    runner.close();
    wait_until("closed", || runner.report().state() == ServerState::Closed);
    assert_eq!(runner.pull(&mut bytes, &params()), 0);
}

#[test]
fn a_thread_that_hangs_holds_up_nobody() {
    struct Hangs(Arc<AtomicBool>);
    impl Output for Hangs {
        fn open(&mut self, _: &Params, _: Opening) -> Result<(), BackendError> {
            while !self.0.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Ok(())
        }
        fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
            Ok(bytes.len())
        }
        fn close(&mut self) {}
    }
    let free = Arc::new(AtomicBool::new(false));
    let hangs = Box::new(Hangs(Arc::clone(&free)));
    let mut runner = OutputRunner::spawn("test", hangs, Pacing::Clock, Arc::new(|_| {})).unwrap();
    runner.open(&params(), Opening::Prepared);
    runner.start();
    for _ in 0..1000 {
        runner.push(&[0; 1920], &params());
    }
    runner.stop();
    runner.close();
    assert!(runner.report().discarded() > 0, "the pipe is bounded");
    runner.open(&params(), Opening::Prepared);
    free.store(true, Ordering::SeqCst);
    wait_until("open again", || {
        runner.report().state() == ServerState::Live
    });
}

#[test]
fn a_guest_that_asks_faster_than_a_back_end_obeys_piles_nothing_up() {
    /// Hangs until it is freed, and counts.
    #[derive(Clone, Default)]
    struct Slow {
        free: Arc<AtomicBool>,
        opened: Arc<Mutex<Vec<u8>>>,
        selected: Arc<Mutex<Vec<u32>>>,
    }
    impl Input for Slow {
        fn open(&mut self, params: &Params, _: Opening) -> Result<(), BackendError> {
            while !self.free.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            self.opened.lock().unwrap().push(params.channels);
            Ok(())
        }
        fn read(&mut self, _: &mut [u8]) -> Result<usize, BackendError> {
            Ok(0)
        }
        fn select(&mut self, source: u32) {
            self.selected.lock().unwrap().push(source);
        }
        fn close(&mut self) {}
    }
    let slow = Slow::default();
    let input = Box::new(slow.clone());
    let mut runner = InputRunner::spawn("test", input, Pacing::Clock, Arc::new(|_| {})).unwrap();
    let mut newest = params();
    for round in 0..2000 {
        runner.open(&newest, Opening::Prepared);
        runner.start();
        runner.select(round, None);
        runner.stop();
        runner.close();
    }
    newest.channels = 8;
    runner.open(&newest, Opening::Prepared);
    runner.start();
    slow.free.store(true, Ordering::SeqCst);
    wait_until("the newest wish is obeyed", || {
        slow.opened.lock().unwrap().last() == Some(&8)
            && runner.report().state() == ServerState::Live
    });
    let opened = slow.opened.lock().unwrap().len();
    assert!(opened <= 64, "opened {opened} times: every one had waited");
    assert_eq!(slow.selected.lock().unwrap().last(), Some(&1999));
}

#[test]
fn a_guest_has_a_sound_server_make_no_more_than_a_few_streams_a_second() {
    let began = Instant::now();
    let server = Server::default();
    let pacing = Pacing::Device { target_ms: 20 };
    let mut runner =
        OutputRunner::spawn("test", Box::new(server), pacing, Arc::new(|_| {})).unwrap();
    for _ in 0..12 {
        runner.open(&params(), Opening::Prepared);
        wait_until("open", || runner.report().state() == ServerState::Live);
        runner.close();
        wait_until("closed", || runner.report().state() == ServerState::Closed);
    }
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "four had to wait"
    );
}

#[test]
fn a_guest_that_keeps_a_stream_of_files_at_work_gets_a_quarter_of_a_processor() {
    /// Works for 2 ms of processor time whenever another source is chosen.
    #[derive(Default)]
    struct Laborious(Arc<AtomicUsize>);
    impl Input for Laborious {
        fn open(&mut self, _: &Params, _: Opening) -> Result<(), BackendError> {
            Ok(())
        }
        fn read(&mut self, _: &mut [u8]) -> Result<usize, BackendError> {
            Ok(0)
        }
        fn select(&mut self, _: u32) {
            let time = || clock_gettime(ClockId::ThreadCPUTime);
            let began = time();
            while time() - began < (Duration::from_millis(2).try_into().unwrap()) {}
            self.0.fetch_add(2, Ordering::SeqCst);
        }
        fn is_live(&self) -> bool {
            false
        }
        fn close(&mut self) {}
    }
    let worked = Arc::new(AtomicUsize::new(0));
    let input = Laborious(Arc::clone(&worked));
    let mut runner =
        InputRunner::spawn("test", Box::new(input), Pacing::Clock, Arc::new(|_| {})).unwrap();
    runner.open(&params(), Opening::Prepared);
    let began = Instant::now();
    for source in (0..2).cycle() {
        runner.select(source, None);
        std::thread::sleep(Duration::from_millis(1));
        if began.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    let passed = began.elapsed().as_millis();
    let worked = worked.load(Ordering::SeqCst) as u128;
    // A busy machine only makes it less. The first window and the last are not slept for.
    assert!(worked <= passed / 4 + 200, "{worked} of {passed} ms");
    assert!(worked > 0);
}
