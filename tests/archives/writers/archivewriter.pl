# Packs a folder: archivewriter.pl members SOURCE OUT with Archive::Zip, other variants with IO::Compress::Zip.
use strict;
use warnings;
use File::Find;

my ($variant, $source, $out) = @ARGV;
chdir $source or die;
my @paths;
find({ wanted => sub { push @paths, substr($_, 2) if $_ ne '.' }, no_chdir => 1 }, '.');
@paths = sort @paths;

if ($variant eq 'members') {
    require Archive::Zip;
    my $archive = Archive::Zip->new;
    $archive->zipfileComment('comment');
    -d $_ ? $archive->addDirectory($_) : $archive->addFile($_) for @paths;
    $archive->writeToFileNamed($out) == 0 or die;
    exit;
}

require IO::Compress::Zip;
my %options = (
    'seekable' => [],
    'streamed' => [Stream => 1],
    'stored' => [Method => IO::Compress::Zip::ZIP_CM_STORE()],
    'zip64' => [Zip64 => 1],
    'zip64-streamed' => [Zip64 => 1, Stream => 1],
    'bzip2' => [Method => IO::Compress::Zip::ZIP_CM_BZIP2()],
);
my $writer;
for my $path (@paths) {
    my @member = (Name => $path . (-d $path ? '/' : ''), @{ $options{$variant} });
    if ($writer) { $writer->newStream(@member) }
    else { $writer = IO::Compress::Zip->new($out, ZipComment => 'comment', @member) or die }
    next if -d $path;
    open my $file, '<:raw', $path or die;
    local $/;
    my $content = <$file>;
    $writer->write($content) if length $content;
}
$writer->close or die;
