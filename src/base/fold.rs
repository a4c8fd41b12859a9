//! Names that are compared without their case.

/// Whether `name` is `lower`, which is of small letters and hyphens, but for its case. Setting bit 5 maps
/// capitals to small letters and leaves hyphens; what else it maps to those is in no token. With the length
/// known, this is a few wide instructions.
#[inline(always)]
pub fn is_folded<const N: usize>(name: &[u8], lower: &str) -> bool {
    let (Some(name), Some(lower)) = (name.first_chunk::<N>(), lower.as_bytes().first_chunk::<N>())
    else {
        return false;
    };
    let mut difference = 0;
    for i in 0..N {
        difference |= (name[i] | 0x20) ^ lower[i];
    }
    difference == 0
}
