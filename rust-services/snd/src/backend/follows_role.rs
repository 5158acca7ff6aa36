// SPDX-License-Identifier: Apache-2.0

//! A stream whose sound server is told of its role, and of another role while it runs.
//!
//! PipeWire and its kind read the role when a stream is made. So a stream that gets another one is
//! made anew on the server, while the guest's goes on: a gap of the server's latency is heard.

use super::{BackendError, Input, Opening, Output, Role};
use crate::format::Params;

/// Makes the far end of a stream for a role.
pub type Make<T> = Box<dyn Fn(Role) -> Box<T> + Send>;
/// Says which role the stream has now.
pub type Now = Box<dyn Fn() -> Role + Send>;

/// The far end of a stream, made anew where the role is another one.
pub struct FollowsRole<T: ?Sized> {
    make: Make<T>,
    now: Now,
    role: Role,
    end: Box<T>,
    params: Option<Params>,
    running: bool,
    /// Selected source of an input.
    source: Option<u32>,
}

impl<T: ?Sized> FollowsRole<T> {
    /// An end that `make` makes for the role that `now` says.
    pub fn new(make: Make<T>, now: Now) -> Self {
        let role = now();
        Self {
            end: make(role),
            make,
            now,
            role,
            params: None,
            running: false,
            source: None,
        }
    }

    /// The role, if it is another one than the end was made for.
    fn other_role(&self) -> Option<Role> {
        let role = (self.now)();
        (role != self.role).then_some(role)
    }

    fn remake(&mut self, role: Role) {
        self.role = role;
        self.end = (self.make)(role);
    }
}

impl Output for FollowsRole<dyn Output> {
    fn open(&mut self, params: &Params, opening: Opening) -> Result<(), BackendError> {
        if let Some(role) = self.other_role() {
            self.remake(role);
        }
        self.params = Some(*params);
        self.end.open(params, opening)
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.running = true;
        self.end.start()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        if let (Some(role), Some(params)) = (self.other_role(), self.params) {
            self.end.close();
            self.remake(role);
            log::info!("the sound server is told of the role {}", role.name());
            self.end.open(&params, Opening::Again)?;
            if self.running {
                self.end.start()?;
            }
        }
        self.end.write(bytes)
    }

    fn delay(&mut self) -> u64 {
        self.end.delay()
    }

    fn reserve(&self) -> u64 {
        self.end.reserve()
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        self.running = false;
        self.end.stop()
    }

    fn close(&mut self) {
        self.params = None;
        self.running = false;
        self.end.close();
    }
}

impl Input for FollowsRole<dyn Input> {
    fn open(&mut self, params: &Params, opening: Opening) -> Result<(), BackendError> {
        if let Some(role) = self.other_role() {
            self.remake(role);
            if let Some(source) = self.source {
                self.end.select(source);
            }
        }
        self.params = Some(*params);
        self.end.open(params, opening)
    }

    fn start(&mut self) -> Result<(), BackendError> {
        self.running = true;
        self.end.start()
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackendError> {
        if let (Some(role), Some(params)) = (self.other_role(), self.params) {
            self.end.close();
            self.remake(role);
            if let Some(source) = self.source {
                self.end.select(source);
            }
            log::info!("the sound server is told of the role {}", role.name());
            self.end.open(&params, Opening::Again)?;
            if self.running {
                self.end.start()?;
            }
        }
        self.end.read(bytes)
    }

    fn delay(&mut self) -> u64 {
        self.end.delay()
    }

    fn is_live(&self) -> bool {
        self.end.is_live()
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        self.running = false;
        self.end.stop()
    }

    fn select(&mut self, source: u32) {
        self.source = Some(source);
        self.end.select(source);
    }

    fn close(&mut self) {
        self.params = None;
        self.running = false;
        self.end.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::format::{Format, Rate};

    /// Writes down what is asked of it.
    struct Witness {
        role: Role,
        said: Arc<Mutex<Vec<String>>>,
    }

    impl Witness {
        fn says(&self, what: &str) {
            let line = format!("{} {what}", self.role.name());
            self.said.lock().unwrap().push(line);
        }
    }

    impl Output for Witness {
        fn open(&mut self, _: &Params, opening: Opening) -> Result<(), BackendError> {
            self.says(&format!("open {opening:?}"));
            Ok(())
        }
        fn start(&mut self) -> Result<(), BackendError> {
            self.says("start");
            Ok(())
        }
        fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
            self.says("write");
            Ok(bytes.len())
        }
        fn close(&mut self) {
            self.says("close");
        }
    }

    #[test]
    fn a_running_stream_is_made_anew_for_another_role_and_an_idle_one_when_it_opens() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let role = Arc::new(AtomicUsize::new(0));
        let (witnesses, now) = (Arc::clone(&said), Arc::clone(&role));
        let mut end = FollowsRole::<dyn Output>::new(
            Box::new(move |role| {
                let said = Arc::clone(&witnesses);
                Box::new(Witness { role, said })
            }),
            Box::new(move || Role::ALL[now.load(Ordering::Relaxed)]),
        );
        let params = Params {
            format: Format::S16,
            rate: Rate::from_hertz(48_000).unwrap(),
            channels: 2,
            buffer_bytes: 0,
            period_bytes: 0,
            features: 0,
        };
        role.store(1, Ordering::Relaxed);
        end.open(&params, Opening::Prepared).unwrap();
        end.start().unwrap();
        end.write(&[0; 4]).unwrap();
        role.store(3, Ordering::Relaxed);
        end.write(&[0; 4]).unwrap();
        end.write(&[0; 4]).unwrap();
        let expected = [
            "Navigation open Prepared",
            "Navigation start",
            "Navigation write",
            "Navigation close",
            "Emergency open Again",
            "Emergency start",
            "Emergency write",
            "Emergency write",
        ];
        assert_eq!(*said.lock().unwrap(), expected);
    }
}
