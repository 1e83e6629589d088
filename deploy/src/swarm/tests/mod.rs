mod machine;
mod network;
mod simulation;
