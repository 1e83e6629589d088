//! How much of a build is kept in memory, in bytes.

use kiln_protos::bep::{self, build_event::Payload};
use prost::Message;

use super::build::Build;

impl Build {
    /// Bytes of events from which something is kept: about what it takes in memory.
    pub fn kept_bytes(&self) -> u64 {
        self.kept as u64
    }

    /// Nothing more is kept but how it ends: there is no room for it.
    pub fn keep_no_more(&mut self) {
        self.limits.bytes = self.kept;
    }

    /// Whether what an event says can be kept, which is then counted. How a build ends always is, and the end of
    /// what it printed is bounded by itself.
    pub(super) fn has_room(&mut self, event: &bep::BuildEvent) -> bool {
        if matches!(event.payload, None | Some(Payload::Progress(_) | Payload::Finished(_))) {
            return true;
        }
        let kept = self.kept.saturating_add(event.encoded_len());
        let fits = kept <= self.limits.bytes;
        if fits {
            self.kept = kept;
        }
        fits
    }
}
