import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;

/** Packs a folder: ArchiveWriter deflated|stored|commented|file-system SOURCE OUT. */
public class ArchiveWriter {
    public static void main(String[] arguments) throws IOException {
        Path source = Path.of(arguments[1]);
        Path out = Path.of(arguments[2]);
        List<Path> paths;
        try (Stream<Path> walk = Files.walk(source)) {
            paths = walk.filter(path -> !path.equals(source)).sorted().collect(Collectors.toList());
        }
        if (arguments[0].equals("file-system")) {
            copyInto(out, source, paths);
        } else {
            stream(arguments[0], out, source, paths);
        }
    }

    private static void stream(String variant, Path out, Path source, List<Path> paths) throws IOException {
        try (OutputStream target = new FileOutputStream(out.toFile());
                ZipOutputStream writer = new ZipOutputStream(target)) {
            if (variant.equals("commented")) {
                writer.setComment("größe");
            }
            for (Path path : paths) {
                boolean isFolder = Files.isDirectory(path);
                ZipEntry entry = new ZipEntry(source.relativize(path) + (isFolder ? "/" : ""));
                byte[] content = isFolder ? new byte[0] : Files.readAllBytes(path);
                if (variant.equals("stored")) {
                    CRC32 crc = new CRC32();
                    crc.update(content);
                    entry.setMethod(ZipEntry.STORED);
                    entry.setSize(content.length);
                    entry.setCrc(crc.getValue());
                }
                if (variant.equals("commented")) {
                    entry.setComment("日本");
                }
                writer.putNextEntry(entry);
                writer.write(content);
                writer.closeEntry();
            }
        }
    }

    private static void copyInto(Path out, Path source, List<Path> paths) throws IOException {
        URI address = URI.create("jar:" + out.toUri());
        try (FileSystem archive = FileSystems.newFileSystem(address, Map.of("create", "true"))) {
            for (Path path : paths) {
                Files.copy(path, archive.getPath(source.relativize(path).toString()));
            }
        }
    }
}
