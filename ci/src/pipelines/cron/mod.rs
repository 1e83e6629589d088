//! Schedules as crontab(5) writes them, in a time zone, over the changes of its clocks.

mod field;
mod next;
#[cfg(test)]
mod tests;

pub use self::field::CronError;
pub use self::next::Cron;
