// SPDX-License-Identifier: Apache-2.0
//! What was said about a device: on the command line, in the guest's file, and to the service that
//! served the guest before.

use crate::bus::Place;
use crate::cli::{CommandLine, CommonArgs};
use crate::config::{self, ConfigError, DeviceTable, Problems, Selection};
use crate::run::Daemon;
use crate::used_config::UsedConfig;
use std::path::{Path, PathBuf};

/// The guest's name where no file names it.
const UNNAMED_GUEST: &str = "guest";

/// A device's table, as text with places and as values.
type Table<D> = (DeviceTable, <D as Daemon>::Config);

/// What was said about the device.
pub(crate) struct Settings<C> {
    pub(crate) place: Place,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) config: C,
    /// What the service was started with that served this guest before, where it is the same device.
    pub(crate) former: Option<C>,
    table: Option<DeviceTable>,
}

impl<C> Settings<C> {
    /// Looks at the host.
    pub(crate) fn host<D: Daemon<Config = C>>(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::new();
        D::host(&self.config, &self.place, &mut problems);
        config::explain_problems(self.table.as_ref(), problems)
    }
}

/// Reads and checks all that was said about the device.
pub(crate) fn settings<D: Daemon>(
    line: &CommandLine<D::Options>,
) -> Result<Settings<D::Config>, ConfigError> {
    match &line.common.config {
        Some(file) => {
            let ((table, config), former) = usable_file::<D>(file, line)?;
            Ok(Settings {
                place: Place::new(&table.guest, &table.device),
                socket: table.socket.clone(),
                config,
                former,
                table: Some(table),
            })
        }
        None => {
            let mut config = D::Config::default();
            D::configure(&line.device, &mut config);
            config::check_without_file(&config)?;
            let usual = D::usual_name(&config);
            let device = line.common.device.as_deref().unwrap_or(usual);
            Ok(Settings {
                place: Place::new(UNNAMED_GUEST, device),
                socket: None,
                config,
                former: None,
                table: None,
            })
        }
    }
}

/// Reads the file. Where a guest waits for the device of a former service and the file has become
/// wrong or speaks of another device, what that service was started with holds on.
fn usable_file<D: Daemon>(
    file: &Path,
    line: &CommandLine<D::Options>,
) -> Result<(Table<D>, Option<D::Config>), ConfigError> {
    let read = read_file::<D>(file, &line.common, &line.device);
    let Some(number) = line.common.used_config_fd.filter(|_| !line.common.check) else {
        return Ok((read?, None));
    };
    let used = match UsedConfig::take(number) {
        Ok(used) => used,
        Err(error) => {
            log::warn!("--used-config-fd: {error}; a successor reads the file as it is then");
            return Ok((read?, None));
        }
    };
    let former = used.text().and_then(|text| {
        let former = parse_text::<D>(file, text, &line.common, &line.device);
        // Another release may want other keys.
        former.inspect_err(|error| log::warn!("{error}")).ok()
    });
    match (read, former) {
        (Ok(new), Some(former)) if !D::is_same_device(&former.1, &new.1) => {
            log::warn!(
                "{} now describes another device than the guest uses; what the guest was started \
                 with holds on until its VMM starts anew",
                file.display()
            );
            Ok((former, None))
        }
        (Err(error), Some(former)) => {
            // Shown as it is: its lines belong under one another.
            eprintln!("{error}");
            log::warn!(
                "what the guest was started with holds on; mend the file before it starts anew"
            );
            Ok((former, None))
        }
        (Ok(new), former) => {
            if let Err(error) = used.keep(new.0.source()) {
                log::warn!("a successor reads the file as it is then: {error}");
            }
            Ok((new, former.map(|(_, config)| config)))
        }
        (Err(error), None) => Err(error),
    }
}

/// Reads and checks the file.
pub(crate) fn read_file<D: Daemon>(
    file: &Path,
    common: &CommonArgs,
    options: &D::Options,
) -> Result<Table<D>, ConfigError> {
    let text = config::read_text(file)?;
    parse_text::<D>(file, text, common, options)
}

/// Checks `text`, which stands or stood in `file`.
fn parse_text<D: Daemon>(
    file: &Path,
    text: String,
    common: &CommonArgs,
    options: &D::Options,
) -> Result<Table<D>, ConfigError> {
    let selection = Selection {
        device_type: D::TYPE,
        device: common.device.as_deref(),
    };
    let (table, mut config) = config::parse::<D::Config>(file, text, selection)?;
    D::configure(options, &mut config);
    table.check(&config)?;
    Ok((table, config))
}
