//! The sizes of messages: a histogram that costs a few nanoseconds for each message, because there may be millions in a
//! second and every worker counts them.
//!
//! Each worker counts in numbers of its own, which nobody else writes, so an observation is two plain loads and stores,
//! without a lock and without an atomic addition. A scrape sums them over all workers.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::label::Direction;
use super::series::declare;
use super::{Metrics, held};

/// Buckets: powers of four from 16 bytes to 16 MiB, and one for what is larger.
const BUCKETS: usize = 12;
/// The first bound is 4 to this power.
const FIRST: u32 = 2;

/// The bucket of a size: the first whose bound, which belongs to it, is not smaller.
fn bucket(bytes: u64) -> usize {
    // The number of bits of n - 1 is the least exponent of two that reaches n.
    let exponent = u64::BITS - bytes.saturating_sub(1).leading_zeros();
    let bucket = exponent.div_ceil(2).saturating_sub(FIRST);
    (bucket as usize).min(BUCKETS - 1)
}

/// The bound of a bucket in bytes.
fn bound(bucket: usize) -> f64 {
    if bucket == BUCKETS - 1 { f64::INFINITY } else { (1_u64 << (2 * (bucket + FIRST as usize))) as f64 }
}

/// What one worker counted in one direction.
#[derive(Debug, Default)]
struct Sizes {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// Adds to a number that this thread alone writes.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// What one worker counted. Aligned so that no two workers write to one cache line, nor to the pair of lines that
/// processors fetch at once.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    from_client: Sizes,
    from_backend: Sizes,
}

/// All workers' numbers. As many as workers were ever started: they live as long as the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Shards(Arc<Mutex<Vec<Arc<Shard>>>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    direction: Direction,
}

impl Shards {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        declare(
            registry,
            "message_size_bytes",
            "Payload size of complete data messages relayed, by direction (from_client, from_backend)",
            Self::default(),
        )
    }
}

impl EncodeMetric for Shards {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let shards = held(&self.0);
        for direction in [Direction::FromClient, Direction::FromBackend] {
            let (mut buckets, mut sum) = ([0_u64; BUCKETS], 0_u64);
            for shard in &*shards {
                let sizes = shard.of(direction);
                for (total, own) in buckets.iter_mut().zip(&sizes.buckets) {
                    *total += own.load(Ordering::Relaxed);
                }
                sum = sum.wrapping_add(sizes.sum.load(Ordering::Relaxed));
            }
            let counted: Vec<(f64, u64)> = (0..).map(bound).zip(buckets).collect();
            let labels = Sent { direction };
            let mut series = encoder.encode_family(&labels)?;
            // Counted from the same numbers, so that it is the last bucket's whatever is added meanwhile.
            series.encode_histogram::<NoLabelSet>(sum as f64, buckets.iter().sum(), &counted, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Shard {
    fn of(&self, direction: Direction) -> &Sizes {
        match direction {
            Direction::FromClient => &self.from_client,
            Direction::FromBackend => &self.from_backend,
        }
    }
}

/// Where one worker counts the sizes of messages. It can be sent to the worker's thread, but not shared between threads
/// or cloned: its numbers have one writer.
#[derive(Debug)]
pub struct MessageSizes {
    shard: Arc<Shard>,
    one_writer: PhantomData<Cell<()>>,
}

impl MessageSizes {
    /// A complete data message with so many bytes of payload was relayed.
    #[inline]
    pub fn record(&self, direction: Direction, bytes: u64) {
        let sizes = self.shard.of(direction);
        add(&sizes.buckets[bucket(bytes)], 1);
        add(&sizes.sum, bytes);
    }
}

impl Metrics {
    /// Where one more worker counts the sizes of messages. To be called once for each worker.
    pub fn message_sizes(&self) -> MessageSizes {
        let shard = Arc::<Shard>::default();
        held(&self.0.message_sizes.0).push(Arc::clone(&shard));
        MessageSizes { shard, one_writer: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_one_byte_more_to_the_next() {
        assert_eq!((bucket(0), bucket(1), bucket(16)), (0, 0, 0));
        for number in 0..BUCKETS - 1 {
            let bytes = bound(number) as u64;
            assert_eq!((bucket(bytes), bucket(bytes + 1)), (number, number + 1), "{bytes}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!((bound(0), bound(BUCKETS - 2)), (16.0, f64::from(16 << 20)));
    }

    #[test]
    fn every_size_is_in_the_first_bucket_that_reaches_it() {
        for bytes in (0..5000).chain([1 << 20, (1 << 20) + 1, 1 << 30]) {
            let first = (0..BUCKETS).find(|number| bytes as f64 <= bound(*number)).unwrap();
            assert_eq!(bucket(bytes), first, "{bytes}");
        }
    }

    #[test]
    fn the_sizes_of_all_workers_are_summed() {
        let metrics = Metrics::new();
        has(&metrics, r#"wssgate_message_size_bytes_count{direction="from_client"} 0"#);
        let workers: Vec<_> = (0..4).map(|_| metrics.message_sizes()).collect();
        std::thread::scope(|scope| {
            for sizes in workers {
                scope.spawn(move || {
                    for bytes in [0, 64, 65, 100_000_000] {
                        sizes.record(Direction::FromClient, bytes);
                    }
                    sizes.record(Direction::FromBackend, 1);
                });
            }
        });
        has(&metrics, r#"wssgate_message_size_bytes_bucket{le="16.0",direction="from_client"} 4"#);
        has(&metrics, r#"wssgate_message_size_bytes_bucket{le="64.0",direction="from_client"} 8"#);
        has(&metrics, r#"wssgate_message_size_bytes_bucket{le="256.0",direction="from_client"} 12"#);
        has(&metrics, r#"wssgate_message_size_bytes_bucket{le="16777216.0",direction="from_client"} 12"#);
        has(&metrics, r#"wssgate_message_size_bytes_bucket{le="+Inf",direction="from_client"} 16"#);
        has(&metrics, r#"wssgate_message_size_bytes_count{direction="from_client"} 16"#);
        has(&metrics, r#"wssgate_message_size_bytes_sum{direction="from_client"} 400000516.0"#);
        has(&metrics, r#"wssgate_message_size_bytes_count{direction="from_backend"} 4"#);
    }
}
