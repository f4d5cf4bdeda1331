//! Compiles the descriptions of CRI and of KMS plugins with protox (no protoc needed) into client and server stubs. The
//! server stubs exist for tests, which run a runtime in process.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let files = protox::compile(["protos/cri/v1.proto", "protos/kms/v2.proto"], ["protos"])?;
    tonic_prost_build::configure().build_client(true).build_server(true).build_transport(true).compile_fds(files)?;
    Ok(())
}
