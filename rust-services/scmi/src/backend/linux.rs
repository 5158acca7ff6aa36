// SPDX-License-Identifier: Apache-2.0

//! Resources of the host that Linux shows in sysfs: sensors of IIO and hwmon, frequencies of
//! cpufreq and devfreq, limits of powercap; and through a kernel module of ours, clocks, resets,
//! regulators and power domains, for which Linux has no such interface.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::backend::{Backend, Job, JobResult, Names, Resources};
use crate::wire::Status;

/// A sensor's files.
#[derive(Clone, Debug, Default)]
pub struct SensorFiles {
    /// One per axis, below the root.
    pub files: Vec<PathBuf>,
    /// What they say is multiplied by the first and divided by the second.
    pub factor: [i64; 2],
}

/// Where a performance domain's frequency is set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PerformanceFiles {
    /// Nowhere.
    Unbound,
    /// A cpufreq policy: kHz in `scaling_min_freq` and `scaling_max_freq`.
    Cpufreq(String),
    /// A devfreq device: Hz in `min_freq` and `max_freq`.
    Devfreq(String),
}

/// What is bound to what, by the places of the resources.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Sensors.
    pub sensors: Vec<SensorFiles>,
    /// Performance domains.
    pub performance: Vec<PerformanceFiles>,
    /// Power capping domains: zones below class/powercap.
    pub powercaps: Vec<Option<String>>,
    /// What the host's kernel module shows.
    pub resources: Names,
}

impl Bindings {
    /// What a platform's resources are bound to.
    #[must_use]
    pub fn of(platform: &crate::platform::Platform) -> Self {
        let sensors = platform.sensors.iter().map(|of| SensorFiles {
            files: of
                .axes
                .iter()
                .filter_map(|axis| axis.file.as_ref())
                .map(PathBuf::from)
                .collect(),
            factor: of.spec.factor,
        });
        let performance =
            platform
                .performance
                .iter()
                .map(|of| match (&of.spec.cpufreq, &of.spec.devfreq) {
                    (Some(policy), _) => PerformanceFiles::Cpufreq(policy.clone()),
                    (None, Some(device)) => PerformanceFiles::Devfreq(device.clone()),
                    (None, None) => PerformanceFiles::Unbound,
                });
        Self {
            sensors: sensors.collect(),
            performance: performance.collect(),
            powercaps: platform
                .powercaps
                .iter()
                .map(|of| of.spec.zone.clone())
                .collect(),
            resources: Names::of(platform),
        }
    }

    /// Whether nothing is bound.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sensors.iter().all(|of| of.files.is_empty())
            && self
                .performance
                .iter()
                .all(|of| *of == PerformanceFiles::Unbound)
            && self.powercaps.iter().all(Option::is_none)
            && self.resources.is_empty()
    }
}

/// The host's sysfs.
#[derive(Debug)]
pub struct Linux {
    root: PathBuf,
    bindings: Bindings,
    /// When a zone's energy was read last, and what it was in µJ.
    energy: HashMap<usize, (Instant, i64)>,
    resources: Resources,
}

/// The shortest time between two readings of energy that make a power.
const ENERGY_TIME: Duration = Duration::from_millis(20);

impl Linux {
    /// Resources below `root`, `/sys` on a real host.
    #[must_use]
    pub fn new(root: PathBuf, bindings: Bindings) -> Self {
        Self {
            resources: Resources::new(&root, bindings.resources.clone()),
            root,
            bindings,
            energy: HashMap::new(),
        }
    }

    fn measure(&self, sensor: usize) -> Result<Vec<i64>, Status> {
        let of = self
            .bindings
            .sensors
            .get(sensor)
            .ok_or(Status::HardwareError)?;
        let [times, parts] = of.factor;
        let read = |file: &PathBuf| {
            let raw = read_number(&self.root.join(file))?;
            raw.checked_mul(times)
                .and_then(|value| value.checked_div(parts))
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        of.files
            .iter()
            .map(|file| {
                read(file).map_err(|error| {
                    log::debug!("cannot read {}: {error}", file.display());
                    Status::HardwareError
                })
            })
            .collect()
    }

    fn set_frequency(&self, domain: usize, khz: u32) -> io::Result<()> {
        match self.bindings.performance.get(domain) {
            Some(PerformanceFiles::Cpufreq(policy)) => {
                let folder = self.root.join("devices/system/cpu/cpufreq").join(policy);
                let pair = ["scaling_min_freq", "scaling_max_freq"].map(|name| folder.join(name));
                pin(pair, khz.into())
            }
            Some(PerformanceFiles::Devfreq(device)) => {
                let folder = self.root.join("class/devfreq").join(device);
                let pair = ["min_freq", "max_freq"].map(|name| folder.join(name));
                pin(pair, u64::from(khz).saturating_mul(1000))
            }
            Some(PerformanceFiles::Unbound) | None => Ok(()),
        }
    }

    /// A zone tells its power, or the energy that it has used.
    fn power(&mut self, domain: usize) -> io::Result<u32> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let zone = self.bindings.powercaps.get(domain).and_then(Option::as_ref);
        let zone = zone.ok_or_else(invalid)?;
        let folder = self.root.join("class/powercap").join(zone);
        match read_number(&folder.join("power_uw")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            power => return u32::try_from(power?).map_err(|_| invalid()),
        }
        let energy =
            || Ok::<_, io::Error>((Instant::now(), read_number(&folder.join("energy_uj"))?));
        let first = match self.energy.get(&domain) {
            Some(last) if last.0.elapsed() >= ENERGY_TIME => *last,
            _ => {
                let first = energy()?;
                std::thread::sleep(ENERGY_TIME);
                first
            }
        };
        let second = energy()?;
        self.energy.insert(domain, second);
        let time = second.0.saturating_duration_since(first.0).as_micros();
        let used = second
            .1
            .checked_sub(first.1)
            .and_then(|used| u128::try_from(used).ok());
        // The counter begins anew at its end: the next reading is right again.
        let used = used.ok_or_else(|| io::Error::from(io::ErrorKind::Interrupted))?;
        let power = used.saturating_mul(1_000_000).checked_div(time);
        u32::try_from(power.unwrap_or(0)).map_err(|_| invalid())
    }

    fn set_cap(&self, domain: usize, microwatts: u32) -> io::Result<()> {
        match self.bindings.powercaps.get(domain) {
            Some(Some(zone)) => {
                let zone = self.root.join("class/powercap").join(zone);
                fs::write(
                    zone.join("constraint_0_power_limit_uw"),
                    microwatts.to_string(),
                )
            }
            _ => Ok(()),
        }
    }
}

impl Backend for Linux {
    fn work(&mut self, job: Job) -> JobResult {
        match job {
            Job::Measure { sensor, ticket } => JobResult::Measured {
                sensor,
                values: self.measure(sensor),
                ticket,
            },
            Job::Frequency { domain, khz } => set(self.set_frequency(domain, khz), "frequency"),
            Job::Apply {
                kind,
                index,
                state,
                ticket,
            } => JobResult::Applied {
                kind,
                index,
                ticket,
                result: self.resources.apply(kind, index, state).map_err(|error| {
                    log::warn!("{} {index} of the host: {error}", kind.word());
                    Status::HardwareError
                }),
            },
            Job::Power { domain, ticket } => JobResult::Power {
                domain,
                microwatts: self.power(domain).map_err(|error| {
                    log::debug!("cannot read the power of domain {domain}: {error}");
                    Status::HardwareError
                }),
                ticket,
            },
            Job::Cap { domain, microwatts } => set(self.set_cap(domain, microwatts), "cap"),
        }
    }
}

fn set(result: io::Result<()>, what: &str) -> JobResult {
    if let Err(error) = &result {
        log::warn!("cannot set a {what}: {error}");
    }
    JobResult::Set
}

pub(super) fn read_number(path: &Path) -> io::Result<i64> {
    let text = fs::read_to_string(path)?;
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    text.trim().parse().map_err(invalid)
}

/// Makes least and most the same. The kernel keeps the least below the most at each step, so the
/// one that moves away from the other goes first.
fn pin([least, most]: [PathBuf; 2], value: u64) -> io::Result<()> {
    let rises = u64::try_from(read_number(&most)?).unwrap_or(0) < value;
    let order = if rises { [most, least] } else { [least, most] };
    for path in order {
        fs::write(path, value.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Linux) {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("class/hwmon/hwmon0/temp1_input", "45250\n");
        write("bus/iio/devices/iio:device0/in_accel_x_raw", "-100\n");
        write("bus/iio/devices/iio:device0/in_accel_y_raw", "7\n");
        write("bus/iio/devices/iio:device1/in_temp_raw", "none\n");
        write(
            "devices/system/cpu/cpufreq/policy0/scaling_min_freq",
            "500000\n",
        );
        write(
            "devices/system/cpu/cpufreq/policy0/scaling_max_freq",
            "500000\n",
        );
        write("class/devfreq/gpu/min_freq", "0\n");
        write("class/devfreq/gpu/max_freq", "900000000\n");
        write("class/powercap/soc:0/constraint_0_power_limit_uw", "1\n");
        let files = |files: &[&str], factor| SensorFiles {
            files: files.iter().map(PathBuf::from).collect(),
            factor,
        };
        let accel = "bus/iio/devices/iio:device0/in_accel_";
        let bindings = Bindings {
            sensors: vec![
                files(&["class/hwmon/hwmon0/temp1_input"], [1, 1]),
                files(
                    &[&format!("{accel}x_raw"), &format!("{accel}y_raw")],
                    [981, 100],
                ),
                files(&["bus/iio/devices/iio:device1/in_temp_raw"], [1, 1]),
                files(&["class/hwmon/hwmon9/temp1_input"], [1, 1]),
            ],
            performance: vec![
                PerformanceFiles::Cpufreq("policy0".into()),
                PerformanceFiles::Devfreq("gpu".into()),
            ],
            powercaps: vec![Some("soc:0".into())],
            resources: Names::default(),
        };
        let linux = Linux::new(root.path().to_owned(), bindings);
        (root, linux)
    }

    #[test]
    fn sensors_are_read_axis_by_axis_in_the_unit_that_was_configured() {
        let (_root, mut linux) = host();
        let mut measure = |sensor| match linux.work(Job::Measure {
            sensor,
            ticket: None,
        }) {
            JobResult::Measured { values, .. } => values,
            other => panic!("{other:?}"),
        };
        assert_eq!(measure(0), Ok(vec![45_250]));
        assert_eq!(measure(1), Ok(vec![-981, 68]));
        assert_eq!(measure(2), Err(Status::HardwareError), "no number");
        assert_eq!(measure(3), Err(Status::HardwareError), "no file");
        assert_eq!(measure(4), Err(Status::HardwareError), "no sensor");
    }

    #[test]
    fn frequencies_and_caps_are_written_in_the_unit_of_each_subsystem() {
        let (root, mut linux) = host();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        linux.work(Job::Frequency {
            domain: 0,
            khz: 1_500_000,
        });
        linux.work(Job::Frequency {
            domain: 1,
            khz: 600_000,
        });
        linux.work(Job::Cap {
            domain: 0,
            microwatts: 2_500_000,
        });
        let policy = "devices/system/cpu/cpufreq/policy0/";
        assert_eq!(read(&format!("{policy}scaling_min_freq")), "1500000");
        assert_eq!(read(&format!("{policy}scaling_max_freq")), "1500000");
        assert_eq!(read("class/devfreq/gpu/min_freq"), "600000000");
        assert_eq!(read("class/devfreq/gpu/max_freq"), "600000000");
        assert_eq!(
            read("class/powercap/soc:0/constraint_0_power_limit_uw"),
            "2500000"
        );
    }
}
