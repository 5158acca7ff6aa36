// SPDX-License-Identifier: Apache-2.0

//! The process: its options, its sandbox, its server.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agl_virtio_service::cli::Program;
use agl_virtio_service::sandbox::{Policy, Role};
use agl_virtio_service::{Daemon, Exit, ExitReason, Service, ServingError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use virtio_device::{Options as ServerOptions, Server};
use zeroize::Zeroizing;

use crate::config::{BackendKind, Config, RegionConfig};
use crate::control;
use crate::device::RpmbDevice;
use crate::engine::{Engine, Responder};
use crate::key::Key;
use crate::mmc::neighbours::reaches_into;
use crate::mmc::passthrough::Passthrough;
use crate::mmc::region::Region;
use crate::statistics::Statistics;
use crate::store::{Medium, Shape, Store, StoreError, open_file, size_of_store};
use crate::wire::{BLOCK_SIZE, KEY_SIZE};
use crate::worker::Worker;

/// The service's own options.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Keep key, counter and data in this file, which is made where there is none
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    /// Capacity in KiB: a multiple of 128, up to 16384
    #[arg(long, value_name = "KIB")]
    capacity: Option<u32>,
}

/// Why the service ends.
#[derive(Debug, thiserror::Error)]
pub enum RpmbError {
    /// The store cannot be used.
    #[error("{path}: {source}")]
    Store {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: StoreError,
    },
    /// The card cannot be opened.
    #[error("cannot open {path}: {source}; is it the RPMB partition of an eMMC?")]
    Card {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host's key cannot be used.
    #[error("the host's key {path}: {source}")]
    HostKey {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guest cannot be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ExitReason for RpmbError {
    fn exit(&self) -> Exit {
        match self {
            Self::Store { .. } | Self::HostKey { .. } => Exit::Config,
            Self::Card { source, .. } => source.exit(),
            Self::Serving(error) => error.exit(),
            Self::Host { .. } => Exit::Os,
        }
    }
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> RpmbError {
    move |source| RpmbError::Host { what, source }
}

/// The daemon.
pub struct Rpmb;

impl Daemon for Rpmb {
    const TYPE: &'static str = "rpmb";
    const PROGRAM: Program = Program {
        name: "agl-virtio-rpmb",
        version: env!("CARGO_PKG_VERSION"),
        about: "A replay-protected memory block for a virtual machine (virtio-rpmb over vhost-user)",
        examples: "  A store of 128 KiB in ./agl-virtio-rpmb/guest.rpmb:\n\
                   \x20   agl-virtio-rpmb --socket /run/rpmb.sock\n\
                   \x20 The same, elsewhere and larger:\n\
                   \x20   agl-virtio-rpmb --socket /run/rpmb.sock --store /var/lib/ivi.rpmb --capacity 1024\n\
                   \x20 What a guest's file describes, checked and not started:\n\
                   \x20   agl-virtio-rpmb --config /etc/agl-virtio/ivi.toml --device vault --check",
    };
    type Options = Options;
    type Config = Config;
    type Error = RpmbError;

    fn configure(options: &Options, config: &mut Config) {
        if let Some(store) = &options.store {
            config.path.clone_from(store);
            config.backend = BackendKind::File;
            config.region = None;
        }
        if let Some(capacity) = options.capacity {
            config.capacity_kib = capacity;
        }
    }

    fn is_same_device(old: &Config, new: &Config) -> bool {
        old.is_same_device(new)
    }

    fn sandbox(config: &Config, policy: &mut Policy) {
        policy.backend_threads();
        if let Some(region) = &config.region {
            policy.read_only(&region.host_key);
        }
        match config.backend {
            BackendKind::Mmc => {
                policy.read_write(&config.path);
            }
            BackendKind::File => {
                let folder = folder_of(&config.path);
                // What is not there cannot be allowed.
                if let Err(error) = std::fs::create_dir_all(folder) {
                    log::warn!("cannot make the folder {}: {error}", folder.display());
                }
                policy.read_write(folder);
            }
        }
    }

    fn serve(service: Service<Config>, config: Config) -> Result<(), RpmbError> {
        let statistics = Arc::new(Statistics::default());
        let (backend, responder) = responder(&config, &statistics)?;
        let sandbox = service.sandbox.clone();
        // From this thread, which has given up nothing yet that a store needs.
        let worker = Worker::spawn(responder, move || sandbox.enter(Role::Backend))
            .map_err(host("start the store's thread"))?;
        let device = RpmbDevice::new(worker, config.limits(), service.health.worker("rpmb"));
        let seat = service.first_seat(server(&service, device)?)?;
        if let Err(error) = control::show(&service.bus, backend, config.limits(), &statistics) {
            log::error!("the store stays off the bus: {error}");
        }
        service.show_seat(&seat);
        service.ready();
        Ok(service.serve(vec![seat])?)
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What answers the guest, and its name on the bus.
fn responder(
    config: &Config,
    statistics: &Arc<Statistics>,
) -> Result<(&'static str, Box<dyn Responder>), RpmbError> {
    let (limits, counted) = (config.limits(), Arc::clone(statistics));
    let failed = |source| RpmbError::Store {
        path: config.path.clone(),
        source,
    };
    let (name, store) = match (config.backend, &config.region) {
        (BackendKind::File, _) => ("file", open_file(&config.path, &config.shape())),
        (BackendKind::Mmc, Some(region)) => ("mmc-region", open_region(config, region)?),
        (BackendKind::Mmc, None) => {
            let card = card(&config.path)?;
            claim(&card, 0, 0).map_err(failed)?;
            let card = Box::new(card);
            return Ok(("mmc", Box::new(Passthrough::new(card, limits, counted))));
        }
    };
    let store = store.map_err(failed)?;
    Ok((name, Box::new(Engine::new(store, limits, counted))))
}

fn card(path: &Path) -> Result<File, RpmbError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|source| RpmbError::Card {
        path: path.to_owned(),
        source,
    })
}

/// Takes blocks of a card for as long as it is open: two services on one block, by a mistake in a
/// configuration, would bring back what the other one had replaced. 0 blocks are all to its end.
fn claim(card: &File, first_block: u16, blocks: u16) -> Result<(), StoreError> {
    // Small numbers, whose types differ from one C library to the next.
    let short = |number: libc::c_int| libc::c_short::try_from(number).unwrap_or_default();
    let range = libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: first_block.into(),
        l_len: blocks.into(),
        l_pid: 0,
    };
    match fcntl(card.as_raw_fd(), FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(StoreError::InUse),
        Err(error) => Err(StoreError::Medium {
            what: "claim the card's blocks",
            source: error.into(),
        }),
    }
}

fn open_region(
    config: &Config,
    region: &RegionConfig,
) -> Result<Result<Store, StoreError>, RpmbError> {
    let shape = config.shape();
    let key = host_key(&region.host_key)?;
    // Others may read the card; which region it is makes each guest's cover another one.
    let cover = key.derive(
        &[
            b"agl-virtio-rpmb guest key ",
            &region.first_block.to_be_bytes()[..],
        ]
        .concat(),
    );
    let blocks = size_of_store(&shape, BLOCK_SIZE as u64)
        .checked_div(BLOCK_SIZE as u64)
        .and_then(|blocks| u16::try_from(blocks).ok())
        .unwrap_or(u16::MAX);
    let card = card(&config.path)?;
    if let Err(error) = claim(&card, region.first_block, blocks) {
        return Ok(Err(error));
    }
    Ok(open_or_make(&card, &key, region, blocks, &shape, &cover))
}

fn open_or_make(
    card: &File,
    key: &Key,
    region: &RegionConfig,
    blocks: u16,
    shape: &Shape,
    cover: &Key,
) -> Result<Store, StoreError> {
    let failed = |source| StoreError::Medium {
        what: "look at the card",
        source,
    };
    let medium = || -> Result<Box<dyn Medium>, StoreError> {
        let card = Box::new(card.try_clone().map_err(failed)?);
        Ok(Box::new(Region::new(
            card,
            key.clone(),
            region.first_block,
            blocks,
        )))
    };
    match Store::open_made(medium()?, shape, Some(cover.clone())) {
        Err(StoreError::Erased) => {
            let card = Box::new(card.try_clone().map_err(failed)?);
            match reaches_into(card, key.clone(), region.first_block).map_err(failed)? {
                Some(other) => Err(StoreError::Within(other)),
                None => Store::open(medium()?, shape, Some(cover.clone())),
            }
        }
        opened => opened,
    }
}

fn host_key(path: &Path) -> Result<Key, RpmbError> {
    let failed = |source| RpmbError::HostKey {
        path: path.to_owned(),
        source,
    };
    let bytes = Zeroizing::new(std::fs::read(path).map_err(failed)?);
    let key: [u8; KEY_SIZE] = bytes.as_slice().try_into().map_err(|_| {
        failed(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} bytes, not {KEY_SIZE}", bytes.len()),
        ))
    })?;
    Ok(Key::new(key))
}

fn server(service: &Service<Config>, device: RpmbDevice) -> Result<Arc<Server>, ServingError> {
    let sandbox = service.sandbox.clone();
    let options = ServerOptions {
        record: service.kept_record()?,
        prepare_thread: Arc::new(move |_| sandbox.enter(Role::Queue)),
    };
    Ok(Arc::new(Server::new(Arc::new(device), options)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_card_are_one_service_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card");
        File::create(&path).unwrap();
        let open = || card(&path).unwrap();
        let [first, second, third] = [open(), open(), open()];
        claim(&first, 100, 50).unwrap();
        claim(&second, 150, 50).unwrap();
        for (first_block, blocks) in [(149, 2), (100, 1), (50, 200), (199, 1), (0, 0)] {
            let refused = claim(&third, first_block, blocks);
            assert!(matches!(refused, Err(StoreError::InUse)), "{first_block}");
        }
        drop(first);
        claim(&third, 0, 150).unwrap();
    }
}
