//! Compiles the schema without protoc: protox parses, prost-build writes the types.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    let files = protox::compile(["schema/channel.proto"], ["schema"])?;
    // A signed grant carries a preshared key: its Debug is written by hand and leaves the key out.
    prost_build::Config::new().btree_map(["."]).skip_debug(["thinlane.v1.SignedGrant"]).compile_fds(files)?;
    Ok(())
}
