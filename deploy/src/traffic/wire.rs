//! A split as JSON: in a comment of what is rendered, and as programs are told it.

use serde::{Deserialize, Serialize};

use crate::rollouts::machine::Generation;
use crate::rollouts::parts::{Member, Pool, Side, Split};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    pub generation: Generation,
    pub pools: Vec<WrittenPool>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenPool {
    pub side: WrittenSide,
    /// Percent.
    pub share: f64,
    pub members: Vec<WrittenMember>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WrittenSide {
    Baseline,
    Canary,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenMember {
    pub name: String,
    pub address: String,
}

impl Written {
    pub fn of(split: &Split) -> Self {
        let member = |member: &Member| WrittenMember {
            name: member.name.clone(),
            address: member.address.clone(),
        };
        let pool = |pool: &Pool| WrittenPool {
            side: match pool.side {
                Side::Baseline => WrittenSide::Baseline,
                Side::Canary => WrittenSide::Canary,
            },
            share: pool.share,
            members: pool.members.iter().map(member).collect(),
        };
        Self { generation: split.generation, pools: split.pools.iter().map(pool).collect() }
    }

    /// On one line.
    pub fn line(&self) -> String {
        // Text and numbers are written whatever they are; what is no number is null.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn split(self) -> Split {
        let member = |it: WrittenMember| Member { name: it.name, address: it.address };
        let pool = |it: WrittenPool| Pool {
            side: match it.side {
                WrittenSide::Baseline => Side::Baseline,
                WrittenSide::Canary => Side::Canary,
            },
            share: it.share,
            members: it.members.into_iter().map(member).collect(),
        };
        Split { generation: self.generation, pools: self.pools.into_iter().map(pool).collect() }
    }
}
