// SPDX-License-Identifier: Apache-2.0
//! All guests: which there are, from which files, and the difference when the files change.

mod files;

use crate::definition::Definition;
use crate::foreign::paragraph;
use crate::guest::{Command, GuestError, GuestHandle, GuestStatus, Surroundings, spawn};
use agl_virtio_service::Exit;
use agl_virtio_service::config::is_name;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// A guest is shown after this time at the latest, if it is in order.
const SHOWN: Duration = Duration::from_secs(5);
/// A service that has not checked its table within this time is stuck.
const CHECK: Duration = Duration::from_secs(60);
/// A guest that is to start with the manager has so long before the next one begins.
const HEAD_START: Duration = Duration::from_secs(5);
/// So much is told of what is wrong with a file. In characters.
const LONGEST_FAULT: usize = 4000;

/// Why the files are not in force.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// What is wrong with them, a paragraph for each fault. What was in force stays so.
    #[error("the guests stay as they are:\n{}", .0.join("\n\n"))]
    Files(Vec<String>),
    /// No such guest.
    #[error("there is no guest {0}")]
    NoGuest(String),
    /// Not a name.
    #[error("{0:?} cannot be a guest's name: write 1 to 64 letters, digits, - and _")]
    Name(String),
    /// The file cannot be written or removed.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The guest said no.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// What others see of the whole.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// The guests, by name.
    pub guests: BTreeMap<String, GuestHandle>,
    /// What is wrong with the files as they are now; empty where they are in force.
    pub faults: Vec<String>,
}

/// Called with the old and the new status of a guest, or with none when it is gone.
pub type Observer = Arc<dyn Fn(&str, Option<&GuestStatus>, Option<&GuestStatus>) + Send + Sync>;

/// The manager's heart.
pub struct Registry {
    folder: PathBuf,
    surroundings: Arc<Surroundings>,
    observer: Observer,
    overview: watch::Sender<Overview>,
    /// One change at a time; and the guests that go because their files are gone, by name.
    change: Mutex<BTreeMap<String, JoinHandle<()>>>,
    /// Tasks of guests run here, whoever asks for them.
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// No guests yet; `folder` has their files. To be called within the runtime of their tasks.
    #[must_use]
    pub fn new(folder: PathBuf, surroundings: Surroundings, observer: Observer) -> Self {
        Self {
            folder,
            surroundings: Arc::new(surroundings),
            observer,
            overview: watch::Sender::new(Overview::default()),
            change: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// What there is, now and after each change.
    #[must_use]
    pub fn overview(&self) -> watch::Receiver<Overview> {
        self.overview.subscribe()
    }

    /// A guest.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn guest(&self, name: &str) -> Result<GuestHandle, RegistryError> {
        let found = self.overview.borrow().guests.get(name).cloned();
        found.ok_or_else(|| RegistryError::NoGuest(name.to_owned()))
    }

    /// Reads all files. Where all of them are in order, the difference to what is in force is
    /// applied; where one is not, nothing is.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub async fn reload(&self) -> Result<(), RegistryError> {
        let mut leaving = self.change.lock().await;
        self.reload_now(&mut leaving).await
    }

    /// As [`Registry::reload`], for a manager that has just started: nothing is in force that
    /// could stay. So a wrong file costs its own guest alone; and what an earlier manager left
    /// running is looked after by the copy of its file that it was started with, for as long as
    /// the file is wrong, or until it ends where there is none any more.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub async fn begin(&self) -> Result<(), RegistryError> {
        let mut leaving = self.change.lock().await;
        let Read {
            mut definitions,
            faults,
            conflicts,
        } = self.read_all().await;
        definitions.retain(|definition| !conflicts.contains(&definition.name));
        for copy in files::left_running(&self.folder, &self.surroundings) {
            if !definitions.iter().any(|good| good.name == copy.name) {
                log::warn!("{}: goes on by the copy of its file", copy.name);
                definitions.push(Arc::new(copy));
            }
        }
        self.apply(definitions, &mut leaving).await;
        let guests = self.overview.borrow().guests.clone();
        for (name, handle) in guests {
            if !handle.status().definition.file.exists() {
                self.forget(name, handle, &mut leaving).await;
            }
        }
        self.conclude(faults)
    }

    async fn reload_now(&self, leaving: &mut Leaving) -> Result<(), RegistryError> {
        let read = self.read_all().await;
        if read.faults.is_empty() {
            self.apply(read.definitions, leaving).await;
        }
        self.conclude(read.faults)
    }

    /// Tells everybody what is wrong with the files.
    fn conclude(&self, faults: Vec<String>) -> Result<(), RegistryError> {
        self.overview
            .send_modify(|overview| overview.faults.clone_from(&faults));
        if faults.is_empty() {
            return Ok(());
        }
        Err(RegistryError::Files(faults))
    }

    async fn read_all(&self) -> Read {
        let mut read = Read::default();
        match files::list(&self.folder) {
            Ok(files) => {
                for file in files {
                    let judged = match files::trusted(&file) {
                        Ok(()) => self.judge(Definition::read(&file)).await,
                        Err(fault) => Err(vec![fault]),
                    };
                    match judged {
                        Ok(definition) => read.definitions.push(Arc::new(definition)),
                        Err(found) => read.faults.extend(found),
                    }
                }
            }
            Err(error) => {
                let fault = format!("error: {}: {error}", self.folder.display());
                read.faults.push(fault);
            }
        }
        for (guest, fault) in files::sockets_used_twice(&read.definitions, &self.surroundings) {
            read.conflicts.push(guest);
            read.faults.push(fault);
        }
        for fault in &mut read.faults {
            *fault = paragraph(fault, LONGEST_FAULT);
        }
        read
    }

    /// Makes or changes a guest's file, if it is in order together with the others.
    ///
    /// # Errors
    /// What is wrong with it; the file is then as it was.
    pub async fn define(&self, name: &str, source: String) -> Result<(), RegistryError> {
        if !is_name(name) {
            return Err(RegistryError::Name(name.to_owned()));
        }
        // The whole of it is one change: what is restored is what was there before.
        let mut leaving = self.change.lock().await;
        let file = self.folder.join(format!("{name}.toml"));
        let failed = |source| RegistryError::File {
            file: file.clone(),
            source,
        };
        Definition::parse(&file, source.clone()).map_err(|error| {
            RegistryError::Files(vec![paragraph(&error.to_string(), LONGEST_FAULT)])
        })?;
        let old = match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        crate::guest::replace_file(&file, &source).map_err(failed)?;
        let result = self.reload_now(&mut leaving).await;
        if result.is_err() {
            let restored = match old {
                Some(old) => crate::guest::replace_file(&file, &old),
                None => std::fs::remove_file(&file),
            };
            restored.map_err(failed)?;
            // The faults were this file's.
            let _ = self.reload_now(&mut leaving).await;
        }
        result
    }

    /// Removes a guest that does not run, with its file.
    ///
    /// # Errors
    /// It runs, or the file cannot be removed.
    pub async fn remove(&self, name: &str) -> Result<(), RegistryError> {
        let status = self.guest(name)?.status();
        if status.pid != 0 {
            let state = GuestError::State(status.state.word(), "stop it first");
            return Err(state.into());
        }
        let file = status.definition.file.clone();
        std::fs::remove_file(&file).map_err(|source| RegistryError::File { file, source })?;
        self.reload().await
    }

    /// Lets each service judge its own table.
    async fn judge(
        &self,
        read: Result<Definition, agl_virtio_service::config::ConfigError>,
    ) -> Result<Definition, Vec<String>> {
        let definition = read.map_err(|error| vec![error.to_string()])?;
        let mut faults = Vec::new();
        for device in &definition.devices {
            let name = format!("agl-virtio-{}", device.device_type);
            let program = self.surroundings.program(&name);
            let mut command = tokio::process::Command::new(&program);
            command
                .arg("--config")
                .arg(&definition.file)
                .args(["--device", &device.name, "--check"])
                .stdin(std::process::Stdio::null())
                .kill_on_drop(true);
            let place = format!("{}: device {}", definition.file.display(), device.name);
            match tokio::time::timeout(CHECK, command.output()).await {
                Ok(Ok(output)) if output.status.success() => {}
                Ok(Ok(output)) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    if is_of_the_host(output.status.code()) {
                        log::warn!("{place}, as the manager may look at it: {}", said.trim());
                    } else {
                        faults.push(said.trim().to_owned());
                    }
                }
                Ok(Err(error)) => faults.push(format!(
                    "error: {place}: cannot start {program}: {error}\n  = write: nothing, but \
                     install the package {name}"
                )),
                Err(_) => faults.push(format!("error: {place}: {program} --check does not end")),
            }
        }
        if faults.is_empty() {
            Ok(definition)
        } else {
            Err(faults)
        }
    }

    async fn apply(&self, definitions: Vec<Arc<Definition>>, leaving: &mut Leaving) {
        let before = self.overview.borrow().guests.clone();
        for (name, handle) in &before {
            if !definitions
                .iter()
                .any(|definition| definition.name == *name)
            {
                self.forget(name.clone(), handle.clone(), leaving).await;
            }
        }
        for definition in definitions {
            match before.get(&definition.name) {
                Some(handle) => self.renew(handle, definition, leaving).await,
                None => self.add(definition),
            }
        }
        leaving.retain(|_, task| !task.is_finished());
        // Whoever has the answer finds all guests.
        let guests = self.overview.borrow().guests.clone();
        let shown = async {
            for handle in guests.values() {
                handle.is_shown().await;
            }
        };
        // One whose monitor does not answer holds up nobody for longer.
        let _ = tokio::time::timeout(SHOWN, shown).await;
    }

    async fn renew(
        &self,
        handle: &GuestHandle,
        definition: Arc<Definition>,
        leaving: &mut Leaving,
    ) {
        let name = definition.name.clone();
        let going = leaving.remove(&name);
        let status = handle.status();
        if going.is_none() && status.definition.source == definition.source {
            return;
        }
        match handle.call(Command::Define(Arc::clone(&definition))).await {
            Ok(()) => {}
            // Its file came back a moment after it went.
            Err(GuestError::Gone) => {
                if let Some(going) = going {
                    let _ = going.await;
                }
                self.add(definition);
            }
            Err(error) => log::error!("{name}: {error}"),
        }
    }

    fn add(&self, definition: Arc<Definition>) {
        let name = definition.name.clone();
        let (observer, of) = (Arc::clone(&self.observer), name.clone());
        let observe = move |old: Option<&GuestStatus>, new: &GuestStatus| {
            observer(&of, old, Some(new));
        };
        let handle = {
            let _guard = self.runtime.enter();
            spawn(definition, Arc::clone(&self.surroundings), observe)
        };
        self.overview.send_modify(|overview| {
            overview.guests.insert(name, handle);
        });
    }

    /// A guest without a file goes as soon as it does not run; until then it stays visible.
    async fn forget(&self, name: String, handle: GuestHandle, leaving: &mut Leaving) {
        if leaving.get(&name).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (overview, observer) = (self.overview.clone(), Arc::clone(&self.observer));
        let of = name.clone();
        // Now: a file that comes back a moment later is to be heard of after this.
        let answer = handle.ask(Command::Forget).await;
        let task = self.runtime.spawn(async move {
            // Its file is there again, or it is gone already.
            if let Err(error) = answer.wait().await {
                log::debug!("{name}: {error}");
                return;
            }
            observer(&name, Some(&handle.status()), None);
            overview.send_modify(|overview| {
                overview.guests.remove(&name);
            });
        });
        leaving.insert(of, task);
    }
}

/// The guests that go, and what waits for it.
type Leaving = BTreeMap<String, JoinHandle<()>>;

/// What was read of the files.
#[derive(Debug, Default)]
struct Read {
    /// Those in order.
    definitions: Vec<Arc<Definition>>,
    faults: Vec<String>,
    /// Guests that are in order alone, and not together with others.
    conflicts: Vec<String>,
}

/// Starts the guests that say `autostart`, one after the other, unless they run. One that takes
/// long, or does not come up at all, keeps the next ones waiting for a moment only.
pub async fn autostart(registry: &Registry) {
    let guests = registry.overview.borrow().guests.clone();
    for (name, handle) in guests {
        let status = handle.status();
        if status.definition.guest.autostart && status.pid == 0 && status.exit_reason.is_empty() {
            if let Err(error) = handle.call(Command::Autostart).await {
                log::error!("{name}: {error}");
            }
            if tokio::time::timeout(HEAD_START, handle.has_started())
                .await
                .is_err()
            {
                log::warn!("{name}: still starts, and the next guest does not wait for it");
            }
        }
    }
}

/// Everything that is wrong with the guests' files.
pub async fn check(folder: PathBuf, surroundings: Surroundings) -> Vec<String> {
    let registry = Registry::new(folder, surroundings, Arc::new(|_, _, _| {}));
    registry.read_all().await.faults
}

/// Whether a service finds no fault with what is written, but misses something on the host: a folder
/// or a file that it may reach where it runs, and that the manager's sandbox hides.
fn is_of_the_host(code: Option<i32>) -> bool {
    [Exit::NoInput, Exit::CannotCreate, Exit::NoPermission]
        .iter()
        .any(|exit| code == Some(exit.code().into()))
}
