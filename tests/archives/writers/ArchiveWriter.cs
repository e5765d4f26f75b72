using System;
using System.IO;
using System.IO.Compression;

/// Packs a folder: ArchiveWriter.exe folder|stored|streamed SOURCE OUT.
public static class ArchiveWriter
{
    public static void Main(string[] arguments)
    {
        string variant = arguments[0], source = Path.GetFullPath(arguments[1]), target = arguments[2];
        if (variant == "folder")
            ZipFile.CreateFromDirectory(source, target);
        else
            using (Stream file = File.Create(target))
            using (Stream sink = variant == "streamed" ? new Unseekable(file) : file)
                Write(source, sink, variant == "stored" ? CompressionLevel.NoCompression : CompressionLevel.Optimal);
    }

    private static void Write(string source, Stream sink, CompressionLevel level)
    {
        using (var archive = new ZipArchive(sink, ZipArchiveMode.Create, true))
        {
            foreach (string path in Directory.GetDirectories(source, "*", SearchOption.AllDirectories))
                archive.CreateEntry(path.Substring(source.Length + 1) + "/");
            foreach (string path in Directory.GetFiles(source, "*", SearchOption.AllDirectories))
                archive.CreateEntryFromFile(path, path.Substring(source.Length + 1), level);
        }
    }

    private sealed class Unseekable : Stream
    {
        private readonly Stream inner;
        public Unseekable(Stream inner) { this.inner = inner; }
        public override bool CanRead { get { return false; } }
        public override bool CanSeek { get { return false; } }
        public override bool CanWrite { get { return true; } }
        public override long Length { get { throw new NotSupportedException(); } }
        public override long Position
        {
            get { throw new NotSupportedException(); }
            set { throw new NotSupportedException(); }
        }
        public override void Flush() { inner.Flush(); }
        public override int Read(byte[] buffer, int offset, int count) { throw new NotSupportedException(); }
        public override long Seek(long offset, SeekOrigin origin) { throw new NotSupportedException(); }
        public override void SetLength(long value) { throw new NotSupportedException(); }
        public override void Write(byte[] buffer, int offset, int count) { inner.Write(buffer, offset, count); }
    }
}
