mod controller;
mod histories;
mod simulation;
mod waves;
mod world;
