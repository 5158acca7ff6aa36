// SPDX-License-Identifier: Apache-2.0
//! All guests: which there are, from which files, and the difference when the files change.

use crate::definition::Definition;
use crate::guest::{Command, GuestError, GuestHandle, GuestStatus, Surroundings, spawn};
use agl_virtio_service::Exit;
use agl_virtio_service::config::{Diagnostic, is_name};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// A service that has not checked its table within this time is stuck.
const CHECK: Duration = Duration::from_secs(60);

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
    /// One change at a time.
    change: Mutex<()>,
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
            change: Mutex::new(()),
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
        let _one = self.change.lock().await;
        let (definitions, faults) = self.read_all().await;
        if faults.is_empty() {
            self.apply(definitions).await;
            self.overview
                .send_modify(|overview| overview.faults.clear());
            return Ok(());
        }
        self.overview
            .send_modify(|overview| overview.faults.clone_from(&faults));
        Err(RegistryError::Files(faults))
    }

    async fn read_all(&self) -> (Vec<Arc<Definition>>, Vec<String>) {
        let mut faults = Vec::new();
        let mut definitions = Vec::new();
        match self.files() {
            Ok(files) => {
                for file in files {
                    match self.judge(Definition::read(&file)).await {
                        Ok(definition) => definitions.push(Arc::new(definition)),
                        Err(found) => faults.extend(found),
                    }
                }
            }
            Err(error) => faults.push(format!("error: {}: {error}", self.folder.display())),
        }
        faults.extend(sockets_used_twice(&definitions, &self.surroundings));
        (definitions, faults)
    }

    /// Makes or changes a guest's file, if it is in order together with the others.
    ///
    /// # Errors
    /// What is wrong with it; the file is then as it was.
    pub async fn define(&self, name: &str, source: String) -> Result<(), RegistryError> {
        if !is_name(name) {
            return Err(RegistryError::Name(name.to_owned()));
        }
        let file = self.folder.join(format!("{name}.toml"));
        let failed = |source| RegistryError::File {
            file: file.clone(),
            source,
        };
        Definition::parse(&file, source.clone())
            .map_err(|error| RegistryError::Files(vec![error.to_string()]))?;
        let old = match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        crate::guest::replace_file(&file, &source).map_err(failed)?;
        let result = self.reload().await;
        if result.is_err() {
            let restored = match old {
                Some(old) => crate::guest::replace_file(&file, &old),
                None => std::fs::remove_file(&file),
            };
            restored.map_err(failed)?;
            // The faults were this file's.
            let _ = self.reload().await;
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

    fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        files.retain(|file| {
            file.extension()
                .is_some_and(|extension| extension == "toml")
        });
        files.sort();
        Ok(files)
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

    async fn apply(&self, definitions: Vec<Arc<Definition>>) {
        let before = self.overview.borrow().guests.clone();
        for (name, handle) in &before {
            if !definitions
                .iter()
                .any(|definition| definition.name == *name)
            {
                self.forget(name.clone(), handle.clone());
            }
        }
        for definition in definitions {
            match before.get(&definition.name) {
                Some(handle) if handle.status().definition.source == definition.source => {}
                Some(handle) => {
                    let name = definition.name.clone();
                    if let Err(error) = handle.call(Command::Define(definition)).await {
                        log::error!("{name}: {error}");
                    }
                }
                None => self.add(definition),
            }
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
    fn forget(&self, name: String, handle: GuestHandle) {
        let (overview, observer) = (self.overview.clone(), Arc::clone(&self.observer));
        self.runtime.spawn(async move {
            if let Err(error) = handle.call(Command::Forget).await {
                log::debug!("{name}: {error}");
                return;
            }
            observer(&name, Some(&handle.status()), None);
            overview.send_modify(|overview| {
                overview.guests.remove(&name);
            });
        });
    }
}

/// Two guests cannot listen on one socket.
fn sockets_used_twice(definitions: &[Arc<Definition>], around: &Surroundings) -> Vec<String> {
    let mut used: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for definition in definitions {
        for device in &definition.devices {
            let socket = device
                .socket
                .clone()
                .unwrap_or_else(|| around.socket(&definition.name, &device.name));
            let place = format!("{}/{}", definition.name, device.name);
            if let Some(other) = used.insert(socket.clone(), place.clone()) {
                let fault = Diagnostic {
                    message: format!(
                        "{}: {place} and {other} listen on the same socket {}",
                        definition.file.display(),
                        socket.display()
                    ),
                    remedy: "another socket = \"/path\" for one of them".to_owned(),
                    place: None,
                };
                faults.push(fault.to_string());
            }
        }
    }
    faults
}

/// Starts the guests that say `autostart`, one after the other, unless they run.
pub async fn autostart(registry: &Registry) {
    let guests = registry.overview.borrow().guests.clone();
    for (name, handle) in guests {
        let status = handle.status();
        if status.definition.guest.autostart && status.pid == 0 && status.exit_reason.is_empty() {
            if let Err(error) = handle.call(Command::Start).await {
                log::error!("{name}: {error}");
            }
        }
    }
}

/// Everything that is wrong with the guests' files.
pub async fn check(folder: PathBuf, surroundings: Surroundings) -> Vec<String> {
    let registry = Registry::new(folder, surroundings, Arc::new(|_, _, _| {}));
    registry.read_all().await.1
}

/// Whether a service finds no fault with what is written, but misses something on the host: a folder
/// or a file that it may reach where it runs, and that the manager's sandbox hides.
fn is_of_the_host(code: Option<i32>) -> bool {
    [Exit::NoInput, Exit::CannotCreate, Exit::NoPermission]
        .iter()
        .any(|exit| code == Some(exit.code().into()))
}
