mod kayenta;
mod reading;
mod simulated;
mod verdicts;
