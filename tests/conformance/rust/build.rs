//! Generates the stubs: of the contract, and of google.rpc for the details of an error.
use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = PathBuf::from(env::var("RAKIT_PROTOS")?);
    println!("cargo:rerun-if-env-changed=RAKIT_PROTOS");
    println!("cargo:rerun-if-changed={}", protos.display());
    let mut sources: Vec<PathBuf> = Vec::new();
    for folder in ["rakit/api/v1", "google/rpc"] {
        for entry in protos.join(folder).read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "proto") {
                sources.push(path);
            }
        }
    }
    // One file for all packages, nested as their names are: ours refers to google.rpc.
    let stubs = tonic_prost_build::configure().build_server(false).include_file("stubs.rs");
    stubs.compile_protos(&sources, &[protos])?;
    Ok(())
}
