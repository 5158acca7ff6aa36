// SPDX-License-Identifier: Apache-2.0

//! What all agents of a service share: the platform, its back end, and where their wishes outlive it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use agl_virtio_service::bus::Bus;
use virtio_device::{Io, Record, Waker, now};

use crate::backend::{Job, JobResult, Worker};
use crate::control;
use crate::fair::{Fair, FairGuard};
use crate::platform::{AgentId, Platform};

/// Makes [`Handler::woken`](virtio_device::Handler::woken) look for events and answers.
const NEWS: u32 = 0;

/// What all agents have in common.
pub struct Shared {
    platform: Fair<Platform>,
    wakers: Vec<OnceLock<Waker>>,
    worker: OnceLock<Worker>,
    bus: OnceLock<Bus>,
    store: Option<Mutex<Store>>,
}

/// Where agents' wishes outlive the service.
struct Store {
    record: Record,
    bytes: Vec<u8>,
    /// [`Platform::changes`] at the last save.
    changes: u64,
}

impl Shared {
    /// A platform for its agents. With a record, what agents wanted before a death of the service
    /// holds again at once.
    #[must_use]
    pub fn new(mut platform: Platform, record: Option<Record>, now: Duration) -> Arc<Self> {
        let store = record.map(|record| {
            if let Some(bytes) = record.settings() {
                if platform.restore(&bytes, now) {
                    log::info!("what the guests want was taken over from before");
                } else {
                    log::warn!("the configuration is another one: no guest wants anything yet");
                }
            }
            let changes = platform.changes();
            Mutex::new(Store {
                record,
                bytes: Vec::new(),
                changes,
            })
        });
        Arc::new(Self {
            wakers: platform.agents.iter().map(|_| OnceLock::new()).collect(),
            platform: Fair::new(platform),
            worker: OnceLock::new(),
            bus: OnceLock::new(),
            store,
        })
    }

    /// Where slow things are done.
    pub fn use_worker(&self, worker: Worker) {
        // Set once, before the first session.
        let _ = self.worker.set(worker);
    }

    /// An agent's queue thread can be woken from now on.
    pub(crate) fn show_thread(&self, agent: AgentId, io: &Io) {
        let waker = self.wakers.get(agent.index());
        if let Some(waker) = waker.filter(|waker| waker.get().is_none()) {
            match io.waker(NEWS) {
                Ok(made) => {
                    let _ = waker.set(made);
                }
                Err(error) => log::error!("events will be late: {error}"),
            }
        }
    }

    /// Where signals go.
    pub fn use_bus(&self, bus: Bus) {
        let _ = self.bus.set(bus);
    }

    /// The platform. Held for a few commands, or one request from D-Bus.
    pub fn platform(&self) -> FairGuard<'_, Platform> {
        // A thread that panicked has changed votes at most half; the guests go on.
        self.platform.lock()
    }

    /// Runs something that changes the platform from another thread than a queue's.
    pub fn change<T>(&self, change: impl FnOnce(&mut Platform) -> T) -> T {
        let mut platform = self.platform();
        let result = change(&mut platform);
        self.save(&mut platform);
        self.settle(platform, None);
        // Deadlines may have moved: the first queue thread looks.
        if let Some(waker) = self.wakers.iter().find_map(OnceLock::get) {
            waker.wake();
        }
        result
    }

    /// The back end has done something.
    pub fn job_done(&self, result: JobResult) {
        let mut platform = self.platform();
        platform.job_done(result, now());
        self.settle(platform, None);
    }

    /// Saves what agents want, if that has changed.
    pub(crate) fn save(&self, platform: &mut Platform) {
        let Some(store) = &self.store else { return };
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.changes == platform.changes() {
            return;
        }
        store.changes = platform.changes();
        let mut bytes = std::mem::take(&mut store.bytes);
        bytes.clear();
        platform.save(&mut bytes);
        if let Err(error) = store.record.save_settings(&bytes) {
            log::error!("what the guests want would not outlive the service: {error}");
        }
        store.bytes = bytes;
    }

    /// Hands on what the platform has for others than `but`: jobs, events, requests to the host.
    pub(crate) fn settle(&self, mut platform: FairGuard<'_, Platform>, but: Option<AgentId>) {
        platform.sync_host();
        let eventful = platform.take_eventful();
        let mut jobs: Vec<Job> = Vec::new();
        platform.take_jobs(&mut jobs);
        let requests = platform.take_requests();
        let names: Vec<_> = requests
            .into_iter()
            .filter_map(|request| {
                let agent = platform.agents.get(request.agent.index())?;
                Some((agent.name.clone(), request))
            })
            .collect();
        drop(platform);
        for (index, waker) in self.wakers.iter().enumerate() {
            let agent = AgentId::new(index);
            if eventful & agent.bit() != 0 && Some(agent) != but {
                if let Some(waker) = waker.get() {
                    waker.wake();
                }
            }
        }
        if let Some(worker) = self.worker.get() {
            for job in jobs {
                worker.submit(job);
            }
        }
        for (agent, request) in names {
            log::info!("{agent} asks for {} of its system", request.state.word());
            if let Some(bus) = self.bus.get() {
                control::signal_system_power(bus, &agent, request);
            }
        }
    }
}
