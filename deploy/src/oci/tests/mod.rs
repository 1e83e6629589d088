//! Formats of registries: grammars, documents, layers and layouts.

mod documents;
mod grammar;
mod layers;
mod layouts;
