mod controller;
mod histories;
mod simulation;
mod world;
