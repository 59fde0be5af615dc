/* Strings of miners and stealers, to be sought in the unpacked tree: a packed file hides everything. */
rule miner {
  strings:
    $a = "stratum+tcp://" ascii wide
    $b = "stratum+ssl://" ascii wide
    $c = "randomx_create_vm" ascii
    $d = "xmrig" ascii nocase
  condition: any of them
}
rule stealer {
  strings:
    $a = "/.aws/credentials" ascii
    $b = "/.kube/config" ascii
    $c = "/.ssh/id_" ascii
    $d = "169.254.169.254/latest/meta-data" ascii
  condition: 2 of them
}
rule disguise {
  strings: $a = /exec\(\s*(base64\.b64decode|zlib\.decompress|marshal\.loads|bytes\.fromhex)\(/ ascii
  condition: $a
}
