// SPDX-License-Identifier: Apache-2.0
//! Percentiles of times, and medians of those over runs.

/// Percentiles of one run, or their medians over several, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Distribution {
    /// Of one run's times, which must be some.
    pub(crate) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |permille: usize| times[(times.len() - 1) * permille / 1000];
        Self {
            p50: at(500),
            p99: at(990),
            p999: at(999),
            max: at(1000),
        }
    }

    /// The median of each figure over runs, which must be some.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let over =
            |figure: fn(&Self) -> u64| median(&mut runs.iter().map(figure).collect::<Vec<_>>());
        Self {
            p50: over(|run| run.p50),
            p99: over(|run| run.p99),
            p999: over(|run| run.p999),
            max: over(|run| run.max),
        }
    }
}

/// The middle one (the lower of two), of at least one.
pub(crate) fn median(figures: &mut [u64]) -> u64 {
    figures.sort_unstable();
    figures[(figures.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_times() {
        let run = Distribution::of((0..=1000).rev().collect());
        assert_eq!(
            run,
            Distribution {
                p50: 500,
                p99: 990,
                p999: 999,
                max: 1000
            }
        );
        let single = Distribution::of(vec![7]);
        assert_eq!(
            single,
            Distribution {
                p50: 7,
                p99: 7,
                p999: 7,
                max: 7
            }
        );
    }

    #[test]
    fn one_bad_run_of_three_changes_no_median() {
        let good = Distribution {
            p50: 5,
            p99: 6,
            p999: 7,
            max: 8,
        };
        let bad = Distribution {
            p50: 500,
            p99: 600,
            p999: 700,
            max: 800,
        };
        assert_eq!(Distribution::median(&[bad, good, good]), good);
    }
}
