/* The front of the single file: unpacks the Python tree behind it once, then becomes that Python.
 *
 *     [this program][payload: zlib][trailer: magic, length, SHA-256 of the payload]
 *
 * The tree lies in BASE/<first 32 hex digits of the payload's SHA-256>, so another version is another folder and a whole folder is
 * never changed. It is made under another name and renamed, so that two first starts at once, a full disk or a power cut leave either
 * all of it or nothing. BASE is $AIGW_RUNTIME_DIR; else $XDG_DATA_HOME/aigw/rt; else ~/.local/share/aigw/rt; where that cannot be, a
 * private folder in $TMPDIR. The payload's entries are: u32 length of the name, u32 mode, u64 size (little endian), name, bytes.
 *
 * A folder that somebody else owns or may write to is refused. A shared lock on it, which the process keeps, says that it is in use:
 * when a new version was unpacked, the ones before the last that nobody uses are removed. Every failure is one sentence and exit 1. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#define syncfs(fd) fsync(fd)
#define st_mtim st_mtimespec
#endif

#define MAGIC "AIGWSFX2"
#define BLOCK 65536
#define STALE 3600 /* seconds after which what a killed first start left behind is removed */
struct trailer { char magic[8]; uint64_t length; uint64_t unpacked; unsigned char sha256[32]; };

static char self[PATH_MAX], base[PATH_MAX - 128], folder[PATH_MAX], half[PATH_MAX]; /* half: the unfinished folder, "" without one */
static int file;                                                        /* ourselves, open */
static struct trailer trailer;
static off_t payload;

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *at) { (void)s, (void)type, (void)at; return remove(path); }
static void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("error: ", stderr), vfprintf(stderr, format, arguments), fputc('\n', stderr);
  if (*half) remove_tree(half);
  _exit(1);
}

/* --- SHA-256 (FIPS 180-4) --- */
static const uint32_t K[64] = {
  0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,0xd807aa98,0x12835b01,0x243185be,0x550c7dc3,0x72be5d74,
  0x80deb1fe,0x9bdc06a7,0xc19bf174,0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,0x983e5152,0xa831c66d,
  0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,0x06ca6351,0x14292967,0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,0x650a7354,0x766a0abb,0x81c2c92e,
  0x92722c85,0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,0x19a4c116,0x1e376c08,0x2748774c,0x34b0bcb5,
  0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2};
#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))
static void sha256_block(uint32_t h[8], const unsigned char *p) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + w[i - 7] + (ROTATE(w[i - 15], 7) ^ ROTATE(w[i - 15], 18) ^ w[i - 15] >> 3) + (ROTATE(w[i - 2], 17) ^ ROTATE(w[i - 2], 19) ^ w[i - 2] >> 10);
  memcpy(v, h, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t a = v[7] + (ROTATE(v[4], 6) ^ ROTATE(v[4], 11) ^ ROTATE(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
    uint32_t b = (ROTATE(v[0], 2) ^ ROTATE(v[0], 13) ^ ROTATE(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 28), v[4] += a, v[0] = a + b;
  }
  for (int i = 0; i < 8; i++) h[i] += v[i];
}
static void check_payload(void) {
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  static unsigned char block[BLOCK + 128];
  unsigned char digest[32];
  uint64_t left = trailer.length;
  off_t at = payload;
  for (int last = 0; !last;) {
    size_t want = left < BLOCK ? left : BLOCK, have = 0;
    for (ssize_t n; have < want; have += n, at += n)
      if ((n = pread(file, block + have, want - have, at)) <= 0) fail("%s cannot be read to its end: download it again", self);
    left -= want;
    if ((last = want < BLOCK)) {
      block[have++] = 0x80;
      while (have % 64 != 56) block[have++] = 0;
      for (int i = 7; i >= 0; i--) block[have++] = (unsigned char)(trailer.length * 8 >> 8 * i);
    }
    for (size_t i = 0; i < have; i += 64) sha256_block(h, block + i);
  }
  for (int i = 0; i < 32; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
  if (memcmp(digest, trailer.sha256, 32)) fail("%s was damaged or changed (its SHA-256 is another): download it again", self);
}

/* --- reading the payload --- */
static z_stream stream;
static int finished;
static void take(void *to, size_t size) {
  static unsigned char block[BLOCK];
  static uint64_t used;
  stream.next_out = to, stream.avail_out = (uInt)size;
  while (stream.avail_out) {
    if (!stream.avail_in) {
      ssize_t n = pread(file, block, trailer.length - used < BLOCK ? trailer.length - used : BLOCK, payload + (off_t)used);
      if (n <= 0) fail("%s ends too early: download it again", self);
      used += (uint64_t)n, stream.next_in = block, stream.avail_in = (uInt)n;
    }
    int result = inflate(&stream, Z_NO_FLUSH);
    finished = result == Z_STREAM_END;
    if (result != Z_OK && !(finished && !stream.avail_out)) fail("%s holds what is not ours: download it again", self);
  }
}

static int make_folders(char *path, mode_t mode) { /* with all above it */
  for (char *at = path + 1; (at = strchr(at, '/')); at++) {
    *at = 0;
    int bad = mkdir(path, mode) && errno != EEXIST && errno != EROFS && errno != EACCES; /* what is there need not be writable */
    *at = '/';
    if (bad) return -1;
  }
  return mkdir(path, mode) && errno != EEXIST ? -1 : 0;
}

static void cannot_write(const char *path) {
  int why = errno;
  if (why == ENOSPC || why == EDQUOT)
    fail("no space left in %s: %llu MB are needed; make room, or point AIGW_RUNTIME_DIR at another disk", base, (unsigned long long)(trailer.unpacked / 1000000 + 10));
  fail("cannot write %s: %s; point AIGW_RUNTIME_DIR at a folder that you may write to", path, strerror(why));
}

static void unpack(void) {
  static unsigned char block[BLOCK];
  struct { uint32_t name, mode; uint64_t size; } head;
  char path[2 * PATH_MAX];
  check_payload();
  snprintf(half, sizeof half, "%s/.new.XXXXXX", base);
  if (!mkdtemp(half)) { *half = 0; cannot_write(base); }
  size_t prefix = (size_t)snprintf(path, sizeof path, "%s/", half);
  if (inflateInit(&stream) != Z_OK) fail("out of memory");
  uint64_t done = 0;
  for (; done < trailer.unpacked; done += 16 + head.name + head.size) {
    take(&head, 16);
    if (head.name == 0 || head.name >= PATH_MAX) fail("%s holds what is not ours: download it again", self);
    take(path + prefix, head.name), path[prefix + head.name] = 0;
    char *slash = strrchr(path, '/');
    *slash = 0;
    if (make_folders(path, 0755)) cannot_write(path);
    *slash = '/';
    int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0) cannot_write(path);
    for (uint64_t left = head.size; left;) {
      size_t n = left < BLOCK ? left : BLOCK;
      take(block, n);
      for (size_t at = 0; at < n;) {
        ssize_t wrote = write(out, block + at, n - at);
        if (wrote < 0) cannot_write(path);
        at += (size_t)wrote;
      }
      left -= n;
    }
    if (fchmod(out, head.mode & 0755) || close(out)) cannot_write(path);
  }
  stream.next_out = block, stream.avail_out = 1; /* what follows must be the end */
  if (done != trailer.unpacked || (!finished && (inflate(&stream, Z_NO_FLUSH) != Z_STREAM_END || !stream.avail_out))) fail("%s holds what is not ours: download it again", self);
  inflateEnd(&stream);
  int at = open(half, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (at < 0 || fchmod(at, 0755) || syncfs(at)) cannot_write(half); /* or a power cut could leave empty files under a good name */
  close(at);
  if (rename(half, folder)) {
    if (errno != EEXIST && errno != ENOTEMPTY) cannot_write(folder);
    remove_tree(half); /* another first start was quicker */
  }
  *half = 0;
}

/* Removes all versions but this one and the one used last before it, unless they are in use, and what killed first starts left. */
static void prune(void) {
  char path[PATH_MAX], aside[PATH_MAX], last[PATH_MAX] = "";
  struct timespec newest = {0};
  struct stat s;
  for (int pass = 0; pass < 2; pass++) {
    DIR *all = opendir(base);
    if (!all) return;
    for (struct dirent *one; (one = readdir(all));) {
      int version = strlen(one->d_name) == 32 && strspn(one->d_name, "0123456789abcdef") == 32;
      int left = !strncmp(one->d_name, ".new.", 5) || !strncmp(one->d_name, ".old.", 5);
      snprintf(path, sizeof path, "%s/%.100s", base, one->d_name);
      if ((!version && !left) || !strcmp(path, folder) || lstat(path, &s) || !S_ISDIR(s.st_mode) || s.st_uid != getuid()) continue;
      if (pass == 0 && version && (s.st_mtim.tv_sec > newest.tv_sec || (s.st_mtim.tv_sec == newest.tv_sec && s.st_mtim.tv_nsec > newest.tv_nsec)))
        newest = s.st_mtim, snprintf(last, sizeof last, "%s", path);
      if (pass == 0) continue;
      if (left && s.st_mtim.tv_sec + STALE < time(NULL)) remove_tree(path);
      if (!version || !strcmp(path, last)) continue;
      int in_use = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (in_use >= 0 && !flock(in_use, LOCK_EX | LOCK_NB)) {
        snprintf(aside, sizeof aside, "%s/.old.%.100s", base, one->d_name);
        if (!rename(path, aside)) remove_tree(aside);
      }
      if (in_use >= 0) close(in_use);
    }
    closedir(all);
  }
}

/* Whether BASE can hold a tree; when *must*, says why not and ends. */
static int usable(int must) {
  struct stat s;
  struct statvfs v;
  snprintf(folder, sizeof folder, "%s/", base);
  for (int i = 0; i < 16; i++) snprintf(folder + strlen(folder), 3, "%02x", trailer.sha256[i]);
  if (!lstat(folder, &s)) { /* it is there: it only has to be ours */
    if (!S_ISDIR(s.st_mode)) fail("%s is not a folder: remove it", folder);
  } else {
    if (make_folders(base, 0700) || access(base, W_OK)) {
      if (must) cannot_write(base);
      return 0;
    }
  }
  if (stat(base, &s)) cannot_write(base);
  if (s.st_uid != getuid() && s.st_uid != 0)
    fail("%s belongs to another user (%u, you are %u), who could change what runs here; point AIGW_RUNTIME_DIR at a folder of your own", base, s.st_uid, getuid());
  if (s.st_mode & 022) fail("%s may be written to by others, who could change what runs here: chmod go-w %s", base, base);
  if (!statvfs(base, &v) && v.f_flag & ST_NOEXEC) {
    if (must) fail("%s is on a disk mounted noexec, from which no program may start; point AIGW_RUNTIME_DIR at another folder", base);
    return 0;
  }
  return 1;
}

static void choose_base(void) {
  const char *set = getenv("AIGW_RUNTIME_DIR"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME"), *temporary = getenv("TMPDIR");
  int length;
  if (set && *set) {
    if (*set != '/') fail("AIGW_RUNTIME_DIR is %s; it takes an absolute path", set);
    length = snprintf(base, sizeof base, "%s", set);
    if (length >= (int)sizeof base) fail("AIGW_RUNTIME_DIR is too long");
    usable(1);
    return;
  }
  if (data && *data == '/') length = snprintf(base, sizeof base, "%s/aigw/rt", data);
  else if (home && *home == '/') length = snprintf(base, sizeof base, "%s/.local/share/aigw/rt", home);
  else length = 0;
  if (length > 0 && length < (int)sizeof base && usable(0)) return;
  char first[sizeof base];
  strcpy(first, length > 0 ? base : "");
  snprintf(base, sizeof base, "%.900s/aigw-%u", temporary && *temporary == '/' ? temporary : "/tmp", getuid());
  if (mkdir(base, 0700) && errno != EEXIST) {
    if (*first) fail("neither %s nor %s can be used: %s; point AIGW_RUNTIME_DIR at a folder that you may write to", first, base, strerror(errno));
    fail("HOME is not set, and %s cannot be made: %s; point AIGW_RUNTIME_DIR at a folder that you may write to", base, strerror(errno));
  }
  usable(1);
  struct stat s;
  if (lstat(base, &s) || !S_ISDIR(s.st_mode)) fail("%s is not a folder: remove it", base); /* /tmp is everybody's: no links there */
  if (lstat(folder, &s))
    fprintf(stderr, "note: %s%s: aigw unpacks into %s; AIGW_RUNTIME_DIR names a better place\n", *first ? first : "HOME", *first ? " cannot be used" : " is not set", base);
}

/* Opens and locks the folder, which tells others that it is in use for as long as this process lives. 0 when it has gone. */
static int hold(void) {
  struct stat s, now;
  int at = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (at < 0) return 0;
  flock(at, LOCK_SH | LOCK_NB); /* a file system without locks: it is not pruned while it is the last one used */
  if (fstat(at, &s) || lstat(folder, &now) || s.st_ino != now.st_ino || s.st_dev != now.st_dev) { close(at); return 0; }
  if (s.st_uid != getuid() && s.st_uid != 0)
    fail("%s belongs to another user (%u, you are %u), who could change what runs here; remove it, or point AIGW_RUNTIME_DIR at a folder of your own", folder, s.st_uid, getuid());
  if (s.st_mode & 022) fail("%s may be written to by others, who could change what runs here: remove it", folder);
  if (s.st_uid == getuid()) futimens(at, NULL); /* used last: now */
  return 1;
}

/* OpenSSL looks where the machine that built it keeps its authorities; other systems keep them elsewhere. */
static void find_authorities(void) {
  static const char *known[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
  if (getenv("SSL_CERT_FILE") || getenv("SSL_CERT_DIR") || !access(known[0], R_OK)) return;
  for (int i = 1; i < 4; i++)
    if (!access(known[i], R_OK)) { setenv("SSL_CERT_FILE", known[i], 1); return; }
}

int main(int count, char **given) {
  struct stat s;
#ifdef __APPLE__
  char found[PATH_MAX];
  uint32_t room = sizeof found;
  if (_NSGetExecutablePath(found, &room) || !realpath(found, self)) fail("cannot find this program's own file");
#else
  ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length <= 0) fail("cannot find this program's own file: is /proc mounted?");
#endif
  if (geteuid() != getuid() || getegid() != getgid()) fail("%s must not be setuid: it runs with the rights of whoever starts it", self);
#ifdef __APPLE__
  file = open(self, O_RDONLY | O_CLOEXEC);
#else
  file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* also when the file was replaced or removed since */
#endif
  if (file < 0 || fstat(file, &s)) fail("cannot read %s: %s", self, strerror(errno));
  if (s.st_size < (off_t)sizeof trailer || pread(file, &trailer, sizeof trailer, s.st_size - (off_t)sizeof trailer) != sizeof trailer ||
      memcmp(trailer.magic, MAGIC, 8) || trailer.length > (uint64_t)s.st_size - sizeof trailer)
    fail("%s is not whole (its end is missing): download it again", self);
  payload = s.st_size - (off_t)sizeof trailer - (off_t)trailer.length;
  choose_base();
  for (int attempt = 0; !hold(); attempt++) {
    if (attempt == 3) fail("%s cannot be opened: %s", folder, strerror(errno));
    int there = !lstat(folder, &s);
    if (there) continue;
    unpack();
    prune();
  }
  char python[PATH_MAX + 16];
  snprintf(python, sizeof python, "%s/bin/python3", folder);
  setenv("AIGW_LAUNCHER", self, 1);
  setenv("AIGW_RUNTIME", folder, 1);
  find_authorities();
  char **arguments = calloc((size_t)count + 7, sizeof *arguments);
  if (!arguments) fail("out of memory");
  static char *ours[] = {"-I", "-S", "-B", "-m", "aigw"};
  arguments[0] = python;
  memcpy(arguments + 1, ours, sizeof ours);
  memcpy(arguments + 6, given + 1, (size_t)(count - 1) * sizeof *given);
  execv(python, arguments);
  if (errno == ENOENT) fail("%s is not whole (files are missing): remove it and start again", folder);
  fail("cannot start %s: %s; if it was changed, remove %s and start again", python, strerror(errno), folder);
}
