//! Why promotion could not do what was asked.

use kiln_cas::records::RecordsError;

use crate::json::JsonError;
use crate::promotion::acts::Refusal;
use crate::promotion::parts::PartError;
use crate::releases::ReleaseName;
use crate::signing::StatementError;

#[derive(Debug, thiserror::Error)]
pub enum PromotionError {
    #[error("there is no release {0}")]
    NoRelease(ReleaseName),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the records of promotions cannot be used")]
    Records(#[from] RecordsError),
    #[error("the record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: JsonError,
    },
    #[error("what is to be kept cannot be written")]
    Unwritable(#[source] JsonError),
    #[error("{what} could not be asked")]
    Part {
        what: &'static str,
        #[source]
        source: PartError,
    },
    #[error("the summary of the promotion is no statement")]
    Summary(#[from] StatementError),
    #[error("others changed what was asked about again and again")]
    Restless,
}
