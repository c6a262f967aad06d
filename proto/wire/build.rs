//! Compiles the schema without protoc: protox parses, prost-build writes the types.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    let files = protox::compile(["schema/channel.proto"], ["schema"])?;
    // A signed grant carries a preshared key, a ticket its secret: their Debug is written by hand and leaves them out.
    let secret = ["thinlane.v1.SignedGrant", "thinlane.v1.ProbeTicket"];
    prost_build::Config::new().btree_map(["."]).skip_debug(secret).compile_fds(files)?;
    Ok(())
}
