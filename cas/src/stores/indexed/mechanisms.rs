//! Creates the parts of an indexed store and connects them. Each part knows only the parts that it is given
//! here.

use std::sync::Arc;

use tokio::sync::watch;

use super::activity::Activity;
use super::admission::Admission;
use super::claim::CollectionClaim;
use super::collect::Collector;
use super::epoch::Epochs;
use super::hurry::Hurry;
use super::index::BlobIndex;
use super::index_client::{IndexClient, Leases};
use super::lookups::Lookups;
use super::objects::Objects;
use super::options::IndexedOptions;
use super::orphans::OrphanCollector;
use super::pending_elsewhere::PendingElsewhere;
use super::presence::PresenceCache;
use super::read_repair::ReadRepair;
use super::reads::Reads;
use super::recent_writes::RecentWrites;
use super::running::RunningInvocations;
use super::space::Space;
use super::stats::IndexedStats;
use super::upkeep::Upkeep;
use super::uploads::Uploads;
use super::write_behind::WriteBehind;
use super::writes::Writes;

pub struct Mechanisms {
    pub index: Arc<dyn BlobIndex>,
    pub activity: Activity,
    pub epochs: Arc<Epochs>,
    pub write_behind: Arc<WriteBehind>,
    pub elsewhere: Arc<PendingElsewhere>,
    pub repair: Arc<ReadRepair>,
    pub space: Arc<Space>,
    pub running: Arc<RunningInvocations>,
    pub collector: Arc<Collector>,
    pub orphans: Arc<OrphanCollector>,
    pub admission: Arc<Admission>,
    pub lookups: Arc<Lookups>,
    pub reads: Reads,
    pub writes: Arc<Writes>,
}

impl Mechanisms {
    /// `stop`: when it becomes true, write-behind ends.
    pub fn new(
        index: Arc<dyn BlobIndex>,
        objects: Arc<dyn Objects>,
        options: &IndexedOptions,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let IndexedOptions { lease, small, max_size, clock, .. } = options.clone();
        let (activity, hurry) = (Activity::default(), Hurry::default());
        let presence = Arc::new(PresenceCache::new(clock.clone()));
        let epochs = Arc::new(Epochs::new(
            index.clone(),
            objects.clone(),
            presence.clone(),
            activity.clone(),
            options.interval,
        ));
        let client = Arc::new(IndexClient::new(
            index.clone(),
            presence.clone(),
            activity.clone(),
            Leases { told: lease, asked: options.asked_lease() },
            hurry.clone(),
        ));
        let uploads = Arc::new(Uploads::new(client.clone(), objects.clone()));
        let write_behind = Arc::new(WriteBehind::new(uploads.clone(), hurry, stop));
        let elsewhere = Arc::new(PendingElsewhere::new(
            index.clone(),
            client.clone(),
            uploads.clone(),
            write_behind.clone(),
        ));
        let repair = Arc::new(ReadRepair::new(objects.clone(), uploads.clone()));
        let space = Arc::new(Space::new(max_size));
        // Without a limit no promise is in the way of anything.
        let invocations = options.invocations.clone().filter(|_| space.limited());
        let running = Arc::new(RunningInvocations::new(index.clone(), invocations, lease));
        let claim = Arc::new(CollectionClaim::new(index.clone()));
        let collector = Arc::new(Collector::new(
            (index.clone(), objects.clone()),
            presence,
            space.clone(),
            running.clone(),
            claim.clone(),
            options.keep,
        ));
        let orphans = OrphanCollector::new(index.clone(), objects.clone(), claim);
        let admission = Arc::new(Admission::new(
            index.clone(),
            space.clone(),
            running.clone(),
            write_behind.clone(),
            collector.clone(),
            clock,
        ));
        let lookups = Arc::new(Lookups::new(
            client.clone(),
            epochs.clone(),
            running.clone(),
            elsewhere.clone(),
        ));
        let recent = Arc::new(RecentWrites::default());
        let reads = Reads {
            client: client.clone(),
            lookups: lookups.clone(),
            objects: objects.clone(),
            write_behind: write_behind.clone(),
            recent: recent.clone(),
            repair: repair.clone(),
            small,
        };
        let writes = Writes {
            admission: admission.clone(),
            client,
            objects,
            uploads,
            write_behind: write_behind.clone(),
            recent,
        };
        Self {
            index,
            activity,
            epochs,
            write_behind,
            elsewhere,
            repair,
            space,
            running,
            collector,
            orphans: Arc::new(orphans),
            admission,
            lookups,
            reads,
            writes: Arc::new(writes),
        }
    }

    /// The work on the store that has to run in the background.
    pub fn upkeep(&self, options: &IndexedOptions) -> Upkeep {
        Upkeep {
            index: self.index.clone(),
            activity: self.activity.clone(),
            epochs: self.epochs.clone(),
            elsewhere: self.elsewhere.clone(),
            collector: self.collector.clone(),
            orphans: self.orphans.clone(),
            running: self.running.clone(),
            space: self.space.clone(),
            interval: options.interval,
            collect_every: options.collect_every,
        }
    }

    pub fn stats(&self) -> IndexedStats {
        let (pending_blobs, pending_bytes) = self.write_behind.pending();
        let (evicted_blobs_total, evicted_bytes_total) = self.collector.evicted();
        let (cut_short_blobs_total, cut_short_bytes_total) = self.collector.cut_short();
        IndexedStats {
            pending_blobs,
            pending_bytes,
            used_bytes: self.space.used(),
            max_bytes: self.space.max(),
            evicted_blobs_total,
            evicted_bytes_total,
            cut_short_blobs_total,
            cut_short_bytes_total,
            orphans_total: self.orphans.deleted(),
            repaired_blobs_total: self.repair.repaired(),
            adopted_blobs_total: self.elsewhere.adopted(),
            refused_writes_total: self.admission.refused(),
            index_incomplete: self.epochs.is_incomplete(),
        }
    }
}
