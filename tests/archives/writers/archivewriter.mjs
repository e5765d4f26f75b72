// Packs a folder: archivewriter.mjs LIBRARY:VARIANT SOURCE OUT. LIBRARY-old is an earlier release of the same library.
import fs from "node:fs";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const [kind, source, out] = process.argv.slice(2);
const [library, variant] = kind.split(":");
const load = () => import(library);
const entries = fs
  .readdirSync(source, { recursive: true, withFileTypes: true })
  .map((entry) => {
    const file = path.join(entry.parentPath, entry.name);
    const isFolder = entry.isDirectory();
    const name = path.relative(source, file).split(path.sep).join("/");
    return { name, file, isFolder, content: isFolder ? Buffer.alloc(0) : fs.readFileSync(file) };
  })
  .sort((a, b) => (a.name < b.name ? -1 : 1));

const writers = {
  async jszip() {
    const { default: JSZip } = await load();
    const archive = new JSZip();
    for (const { name, isFolder, content } of entries) {
      if (isFolder) archive.folder(name);
      else archive.file(name, content);
    }
    const options = { compression: variant === "stored" ? "STORE" : "DEFLATE" };
    if (variant === "unix") options.platform = "UNIX";
    if (variant === "commented") options.comment = "größe";
    if (variant !== "streamed") {
      const whole = { type: "nodebuffer", ...options };
      fs.writeFileSync(out, archive.generateAsync ? await archive.generateAsync(whole) : archive.generate(whole));
      return;
    }
    const stream = archive.generateNodeStream({ streamFiles: true, ...options });
    await pipeline(stream, fs.createWriteStream(out));
  },

  async archiver() {
    const { ZipArchive, default: create } = await load();
    const options = {
      store: variant === "stored",
      forceZip64: variant === "zip64",
      comment: variant === "commented" ? "größe" : "",
    };
    const archive = ZipArchive ? new ZipArchive(options) : create("zip", options);
    const done = pipeline(archive, fs.createWriteStream(out));
    for (const { name, file, isFolder, content } of entries) {
      if (isFolder) archive.append(content, { name: `${name}/`, type: "directory" });
      else if (variant === "streams") archive.append(fs.createReadStream(file), { name });
      else archive.append(content, { name });
    }
    await archive.finalize();
    await done;
  },

  async yazl() {
    const { default: yazl } = await load();
    const archive = new yazl.ZipFile();
    const zip64 = { forceZip64Format: variant === "zip64" };
    for (const { name, file, isFolder, content } of entries) {
      const options = { compress: variant !== "stored", mtime: new Date(0), mode: 0o100644, ...zip64 };
      if (isFolder) archive.addEmptyDirectory?.(name); // unknown to 1.1.0
      else if (variant === "buffers") archive.addBuffer(content, name, options);
      else if (variant === "streams") archive.addReadStream(fs.createReadStream(file), name, options);
      else archive.addFile(file, name, options);
    }
    archive.end({ comment: variant === "commented" ? "comment" : "", ...zip64 });
    await pipeline(archive.outputStream, fs.createWriteStream(out));
  },

  async "adm-zip"() {
    const { default: AdmZip } = await load();
    const archive = new AdmZip();
    for (const { name, isFolder, content } of entries) {
      archive.addFile(isFolder ? `${name}/` : name, content, variant === "commented" ? "größe" : "");
    }
    if (variant === "commented") archive.addZipComment("日本");
    archive.writeZip(out);
  },

  async fflate() {
    const { Zip, ZipDeflate, ZipPassThrough, zipSync } = await load();
    if (variant !== "streamed") {
      const named = entries.map(({ name, isFolder, content }) => [isFolder ? `${name}/` : name, content]);
      fs.writeFileSync(out, zipSync(Object.fromEntries(named), { level: variant === "stored" ? 0 : 6 }));
      return;
    }
    const pieces = [];
    const archive = new Zip((error, data) => {
      if (error) throw error;
      pieces.push(data);
    });
    for (const { name, isFolder, content } of entries) {
      const member = isFolder ? new ZipPassThrough(`${name}/`) : new ZipDeflate(name);
      archive.add(member);
      for (let at = 0; at < content.length; at += 65536) member.push(content.subarray(at, at + 65536));
      member.push(Buffer.alloc(0), true);
    }
    archive.end();
    fs.writeFileSync(out, Buffer.concat(pieces));
  },

  async "@zip.js/zip.js"() {
    const { ZipWriter, Uint8ArrayReader, Uint8ArrayWriter, configure } = await load();
    configure({ useWebWorkers: false });
    const options = {
      plain: {},
      stored: { level: 0 },
      zip64: { zip64: true },
      seekable: { dataDescriptor: false },
      unsigned: { dataDescriptorSignature: false, dataDescriptor: true },
      unix: { msDosCompatible: false, unixMode: 0o100644 },
    }[variant];
    const archive = new ZipWriter(new Uint8ArrayWriter(), options);
    for (const { name, isFolder, content } of entries) {
      if (isFolder) await archive.add(`${name}/`, undefined, { directory: true });
      else await archive.add(name, new Uint8ArrayReader(content));
    }
    fs.writeFileSync(out, await archive.close());
  },

  async "client-zip"() {
    const { downloadZip, makeZip } = await load();
    const files = entries.map(({ name, isFolder, content }) =>
      isFolder ? { name: `${name}/` } : { name, input: content },
    );
    const stream = variant === "sized" ? downloadZip(files).body : makeZip(files);
    await pipeline(Readable.fromWeb(stream), fs.createWriteStream(out));
  },
};

await writers[library.replace(/-old$/, "")]();
